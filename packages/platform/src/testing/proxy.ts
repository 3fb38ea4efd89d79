import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/** What the client sends, or what the server answers. */
export type Direction = "requests" | "answers";

/** A TCP proxy that stands between a client and its server, to cut them apart. */
export interface FaultProxy {
  readonly port: number;
  /** Breaks every connection and refuses new ones until `restore`. */
  cut(): void;
  /** Breaks every connection, by an orderly end or by a reset; new ones pass. */
  drop(how: "end" | "reset"): void;
  /** Ends the server's half of every connection. The client is not told before `restore`; new connections pass. */
  halfOpen(): void;
  /** Passes no more bytes in one direction, new connections included; `restore` lets what was held back arrive late. */
  blackHole(direction: Direction): void;
  /** Passes no more bytes, as if the client's process stood still. */
  freeze(): void;
  /** Passes what the client sends and drops what the server answers, until the connections end. */
  loseAnswers(): void;
  /** Passes every piece of up to 64 KiB so many milliseconds late, in both directions. */
  delay(ms: number): void;
  /** Passes so many bytes a second in each direction of each connection. */
  throttle(bytesPerSecond: number): void;
  /** Lets connections pass unharmed again. Those that were half open are reset; frozen ones go on. */
  restore(): void;
  stop(): Promise<void>;
}

/** A throttled connection passes on pieces of this size. */
const SLICE_BYTES = 512;

interface Connection {
  readonly client: Socket;
  readonly server: Socket;
  losesAnswers: boolean;
  halfOpen: boolean;
}

/** Starts a proxy on the loopback interface that passes bytes to and from `target`. */
export async function startFaultProxy(target: { host: string; port: number }): Promise<FaultProxy> {
  const connections = new Set<Connection>();
  const state = new LinkState();
  let whole = true;
  const server = createServer({ noDelay: true }, (client) => {
    // What breaks is what the tests provoke.
    client.on("error", () => undefined);
    if (!whole) return void client.destroy();
    const connection = { client, server: connect({ ...target, noDelay: true }), losesAnswers: false, halfOpen: false };
    connection.server.on("error", () => undefined);
    connections.add(connection);
    const ended = Promise.allSettled([pass(connection, "requests", state), pass(connection, "answers", state)]);
    void ended.then(() => connections.delete(connection));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");

  const breakAll = (how: "end" | "reset"): void => {
    for (const { client, server: upstream } of connections) {
      if (how === "reset") client.resetAndDestroy();
      else client.destroy();
      upstream.destroy();
    }
  };
  const restore = (): void => {
    whole = true;
    state.clear();
    for (const { client, halfOpen } of connections) if (halfOpen) client.resetAndDestroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      whole = false;
      breakAll("end");
    },
    drop: breakAll,
    halfOpen() {
      for (const connection of connections) {
        connection.halfOpen = true;
        connection.server.destroy();
      }
    },
    blackHole: (direction) => state.hold([direction]),
    freeze: () => state.hold(["requests", "answers"]),
    loseAnswers() {
      for (const connection of connections) connection.losesAnswers = true;
    },
    delay: (ms) => state.set({ delayMs: ms }),
    throttle: (bytesPerSecond) => state.set({ bytesPerSecond }),
    restore,
    async stop() {
      whole = false;
      breakAll("end");
      state.clear();
      server.close();
      await once(server, "close");
    },
  };
}

/** What all connections of a proxy suffer at the moment. */
class LinkState {
  delayMs = 0;
  bytesPerSecond = Number.POSITIVE_INFINITY;
  #held: readonly Direction[] = [];
  #released = Promise.withResolvers<void>();

  set(change: { delayMs?: number; bytesPerSecond?: number }): void {
    Object.assign(this, change);
  }

  hold(directions: readonly Direction[]): void {
    this.#held = [...this.#held, ...directions];
  }

  /** Resolves once bytes may pass in this direction. */
  async passable(direction: Direction): Promise<void> {
    while (this.#held.includes(direction)) await this.#released.promise;
  }

  clear(): void {
    this.set({ delayMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY });
    this.#held = [];
    this.#released.resolve();
    this.#released = Promise.withResolvers();
  }
}

/** Passes one direction of a connection until it ends; then the other half ends too, unless nobody is to notice. */
async function pass(connection: Connection, direction: Direction, state: LinkState): Promise<void> {
  const { client, server } = connection;
  const [from, to] = direction === "requests" ? [client, server] : [server, client];
  const unheard = (): boolean => direction === "answers" && connection.halfOpen;
  try {
    for await (const chunk of from as AsyncIterable<Buffer>) {
      if (state.delayMs > 0) await delay(state.delayMs);
      await state.passable(direction);
      if (connection.halfOpen || (connection.losesAnswers && direction === "answers")) continue;
      if (Number.isFinite(state.bytesPerSecond)) await passSlowly(chunk, to, state);
      else await write(chunk, to);
    }
    await state.passable(direction);
    if (!unheard()) to.end();
  } catch {
    if (!unheard()) to.destroy();
  }
}

async function passSlowly(chunk: Buffer, to: Socket, state: LinkState): Promise<void> {
  const startedAt = performance.now();
  for (let at = 0; at < chunk.length; at += SLICE_BYTES) {
    const slice = chunk.subarray(at, at + SLICE_BYTES);
    await write(slice, to);
    // By when it is due, so that timers which are late on a busy machine don't add up.
    const dueAt = startedAt + ((at + slice.length) / state.bytesPerSecond) * 1_000;
    if (dueAt > performance.now()) await delay(dueAt - performance.now());
  }
}

async function write(chunk: Buffer, to: Socket): Promise<void> {
  if (to.destroyed) throw new Error("the other half is gone");
  if (!to.write(chunk)) await Promise.race([once(to, "drain"), once(to, "close")]);
}

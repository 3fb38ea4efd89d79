import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A TCP proxy that stands between a client and its server, to cut them apart. */
export interface FaultProxy {
  readonly port: number;
  /** Breaks every connection and refuses new ones until `restore`. */
  cut(): void;
  /** Lets new connections pass again, and frozen ones go on. */
  restore(): void;
  /** Passes no more bytes, as if the client's process stood still. */
  freeze(): void;
  /** Passes what the client sends and drops what the server answers, until the connections end. */
  loseAnswers(): void;
  stop(): Promise<void>;
}

/** Starts a proxy on the loopback interface that passes bytes to and from `target`. */
export async function startFaultProxy(target: { host: string; port: number }): Promise<FaultProxy> {
  const sockets = new Set<Socket>();
  const answers = new Map<Socket, Socket>();
  let whole = true;
  const server = createServer((client) => {
    if (!whole) return void client.destroy();
    const upstream = connect(target);
    answers.set(upstream, client);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.pipe(to);
      // A broken half takes the other one along; the error itself is what the tests provoke.
      from.on("error", () => to.destroy());
      from.on("close", () => {
        sockets.delete(from);
        answers.delete(from);
        to.destroy();
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = (): void => {
    whole = false;
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    restore() {
      whole = true;
      for (const socket of sockets) socket.resume();
    },
    freeze() {
      for (const socket of sockets) socket.pause();
    },
    loseAnswers() {
      for (const [upstream, client] of answers) upstream.unpipe(client).resume();
    },
    async stop() {
      cut();
      server.close();
      await once(server, "close");
    },
  };
}

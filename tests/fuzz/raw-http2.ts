import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { flag, frame, number, preface, setting, settings, splitFrames, type } from "./frames.ts";
import { readHeaderBlock } from "./hpack.ts";

/** Our own largest pile of unsent bytes: an attacker must not run out of memory before its victim. */
const MAX_UNSENT = 4 * 1024 * 1024;

/** What came of one stream. */
export interface StreamAnswer {
  /** Headers and trailers. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
  /** The code of RST_STREAM. */
  readonly reset: number | undefined;
  /** Whether the server has said all it will say. */
  readonly ended: boolean;
}

/** How a connection behaves. */
export interface RawOptions {
  /** Bytes of each answer that the server may send unasked; 65,535 when absent. */
  readonly window?: number;
  /** Leaves the preface and SETTINGS away, and answers no SETTINGS. */
  readonly bare?: boolean;
}

/** An HTTP/2 connection that keeps no rule of its own. */
export interface RawHttp2 {
  readonly socket: Socket;
  /** The code of GOAWAY. */
  readonly goaway: number | undefined;
  readonly closed: boolean;
  /** Writes bytes and, when many are unsent, waits until they have left. False once the connection is closed. */
  send(...parts: readonly Buffer[]): Promise<boolean>;
  /** What came of a stream so far. */
  answer(stream: number): StreamAnswer;
  /** Waits until all the streams have ended, the connection is closed, or time is up; what came of them. */
  answers(streams: readonly number[], timeoutMs: number): Promise<StreamAnswer[]>;
  /** Waits until the connection is closed or time is up. */
  end(timeoutMs: number): Promise<boolean>;
  close(): void;
}

interface MutableAnswer {
  readonly headers: Map<string, string>;
  body: Buffer;
  reset: number | undefined;
  ended: boolean;
}

/** Connects and sends preface and SETTINGS; answers the server's SETTINGS and PING, so that it takes us for alive. */
export async function openHttp2(port: number, { window = 65_535, bare = false }: RawOptions = {}): Promise<RawHttp2> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  socket.on("error", () => {});
  await Promise.race([once(socket, "connect"), once(socket, "close")]);
  const streams = new Map<number, MutableAnswer>();
  const state: { goaway: number | undefined; closed: boolean } = { goaway: undefined, closed: socket.destroyed };
  socket.on("close", () => {
    state.closed = true;
  });
  const streamOf = (id: number): MutableAnswer => {
    const known = streams.get(id);
    if (known !== undefined) return known;
    const fresh: MutableAnswer = { headers: new Map(), body: Buffer.alloc(0), reset: undefined, ended: false };
    streams.set(id, fresh);
    return fresh;
  };
  const onFrame = (kind: number, flags: number, id: number, payload: Buffer) => {
    if (!bare && kind === type.settings && flags !== flag.ack) socket.write(frame(type.settings, flag.ack, 0));
    if (kind === type.ping && flags !== flag.ack) socket.write(frame(type.ping, flag.ack, 0, payload));
    if (kind === type.goaway) state.goaway = payload.readUInt32BE(4);
    if (id === 0) return;
    const stream = streamOf(id);
    if (kind === type.headers) for (const [name, value] of readHeaderBlock(payload)) stream.headers.set(name, value);
    if (kind === type.data) stream.body = Buffer.concat([stream.body, payload]);
    // What was read may be sent again, as a reader that keeps up says.
    if (kind === type.data && payload.length > 0 && window > 0) {
      socket.write(Buffer.concat([number(type.windowUpdate, 0, payload.length)]));
    }
    if (kind === type.rstStream) stream.reset = payload.readUInt32BE(0);
    const last = kind === type.data || kind === type.headers;
    if (kind === type.rstStream || (last && (flags & flag.endStream) !== 0)) stream.ended = true;
  };
  splitFrames(socket, onFrame);
  const connection: RawHttp2 = {
    socket,
    get goaway() {
      return state.goaway;
    },
    get closed() {
      return state.closed;
    },
    async send(...parts) {
      if (state.closed) return false;
      const bytes = parts.length === 1 ? parts[0] : Buffer.concat(parts);
      if (bytes !== undefined) socket.write(bytes);
      for (const giveUpAt = performance.now() + 2_000; socket.writableLength > MAX_UNSENT && !state.closed; ) {
        if (performance.now() > giveUpAt) return false;
        await delay(2);
      }
      return !state.closed;
    },
    answer: streamOf,
    async answers(ids, timeoutMs) {
      const giveUpAt = performance.now() + timeoutMs;
      while (!state.closed && performance.now() < giveUpAt && !ids.every((id) => streams.get(id)?.ended))
        await delay(5);
      return ids.map(streamOf);
    },
    async end(timeoutMs) {
      for (const giveUpAt = performance.now() + timeoutMs; !state.closed && performance.now() < giveUpAt; )
        await delay(5);
      return state.closed;
    },
    close: () => void socket.destroy(),
  };
  if (!bare) {
    const own = settings([setting.headerTableSize, 0], [setting.initialWindowSize, window]);
    await connection.send(preface, own);
  }
  return connection;
}

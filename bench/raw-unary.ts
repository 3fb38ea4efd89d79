import { once } from "node:events";
import { connect } from "node:net";
import { flag, frame, literals, number, preface, setting, settings, splitFrames, type } from "../tests/fuzz/frames.ts";
import { readHeaderBlock } from "../tests/fuzz/hpack.ts";

/** An HTTP/2 connection for unary gRPC calls. */
export interface RawConnection {
  /** Sends a call behind those of the same turn; `done` is called once with its grpc-status, or what came instead. */
  ask(message: Uint8Array, done: (status: string) => void): void;
  close(): void;
}

/** More than a benchmark's answers, all together, hold. */
const WINDOW_BYTES = 2 ** 31 - 1;
const DEFAULT_WINDOW_BYTES = 65_535;

/**
 * Connects. Frames are written by hand and in one piece a turn: node:http2 takes as much of a core for a call as the server
 * that is measured, so that at half the server's load what it shows is its own queue.
 */
export async function connectRaw(port: number, headers: Readonly<Record<string, string>>): Promise<RawConnection> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  await once(socket, "connect");
  const block = literals(pseudoFirst({ ...headers, ":scheme": "http", ":authority": "127.0.0.1" }));
  const waiting = new Map<number, (status: string) => void>();
  const statuses = new Map<string, string | undefined>();
  let unsent: Buffer[] = [];
  let nextStream = 1;

  const flush = (): void => {
    socket.write(Buffer.concat(unsent));
    unsent = [];
  };
  const finish = (stream: number, status: string): void => {
    const done = waiting.get(stream);
    waiting.delete(stream);
    done?.(status);
  };
  // Without a dynamic table the same headers are the same bytes: each block is read once.
  const statusOf = (payload: Buffer): string | undefined => {
    const key = payload.toString("latin1");
    if (!statuses.has(key)) statuses.set(key, readHeaderBlock(payload).get("grpc-status"));
    return statuses.get(key);
  };
  splitFrames(socket, (kind, flags, stream, payload) => {
    if (kind === type.settings && flags !== flag.ack) socket.write(frame(type.settings, flag.ack, 0));
    if (kind === type.ping && flags !== flag.ack) socket.write(frame(type.ping, flag.ack, 0, payload));
    if (kind === type.rstStream) finish(stream, "reset");
    if (kind === type.headers && (flags & flag.endStream) !== 0) finish(stream, statusOf(payload) ?? "none");
  });
  socket.on("close", () => {
    for (const stream of waiting.keys()) finish(stream, "closed");
  });
  socket.write(
    Buffer.concat([
      preface,
      settings([setting.headerTableSize, 0]),
      number(type.windowUpdate, 0, WINDOW_BYTES - DEFAULT_WINDOW_BYTES),
    ]),
  );

  return {
    ask(message, done) {
      if (socket.destroyed) throw new Error("the server has closed a connection: the figures mean nothing");
      waiting.set(nextStream, done);
      if (unsent.length === 0) setImmediate(flush);
      unsent.push(
        frame(type.headers, flag.endHeaders, nextStream, block),
        frame(type.data, flag.endStream, nextStream, Buffer.from(message)),
      );
      nextStream += 2;
    },
    close: () => void socket.destroy(),
  };
}

/** HTTP/2 wants the names that begin with a colon first. */
function pseudoFirst(headers: Readonly<Record<string, string>>): [string, string][] {
  return Object.entries(headers).sort(([one], [other]) => Number(other.startsWith(":")) - Number(one.startsWith(":")));
}

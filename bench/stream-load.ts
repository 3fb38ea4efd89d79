import { once } from "node:events";
import { type ClientHttp2Stream, connect } from "node:http2";
import { serveParent } from "./child.ts";
import type { LoadReport } from "./rounds.ts";

/** What the generator is asked to do. */
export interface StreamLoadRequest {
  readonly port: number;
  /** `/package.Service/Method` of a stream both ways. */
  readonly path: string;
  readonly credential: string;
  /** The message that is sent again and again, base64, and how many questions it has. */
  readonly message: string;
  readonly perMessage: number;
  /** Questions that were sent and not answered, at most, of each stream. */
  readonly window: number;
  readonly forMs: number;
  /** Each on a connection of its own. */
  readonly streams: number;
}

const PREFIX_BYTES = 5;

/** Bidirectional gRPC streams with a window of open questions, on bare node:http2. */
async function generate(request: StreamLoadRequest): Promise<LoadReport> {
  const begunAt = performance.now();
  const counts = await Promise.all(Array.from({ length: request.streams }, () => converse(request)));
  const seconds = (performance.now() - begunAt) / 1_000;
  const sum = (of: (count: { answered: number; failed: number }) => number) =>
    counts.reduce((total, count) => total + of(count), 0);
  return { requests: sum(({ answered }) => answered), failed: sum(({ failed }) => failed), seconds };
}

async function converse({ port, path, credential, message, perMessage, window, forMs }: StreamLoadRequest) {
  const session = connect(`http://127.0.0.1:${port}`);
  await once(session, "connect");
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
    authorization: `Bearer ${credential}`,
  });
  const body = Buffer.from(message, "base64");
  const framed = Buffer.concat([Buffer.alloc(PREFIX_BYTES), body]);
  framed.writeUInt32BE(body.length, 1);
  const endAt = performance.now() + forMs;
  const count = { answered: 0, failed: 0 };
  let open = 0;
  const send = (): void => {
    if (performance.now() >= endAt) {
      stream.end();
      return;
    }
    for (; open + perMessage <= window; open += perMessage) stream.write(framed);
  };
  onMessages(stream, (answer) => {
    const answers = perMessage === 1 ? 1 : countFields(answer);
    count.answered += answers;
    open -= answers;
    if (!stream.writableEnded) send();
  });
  stream.on("trailers", (trailers) => {
    if (trailers["grpc-status"] !== "0") count.failed++;
  });
  const closed = once(stream, "close");
  send();
  await closed;
  session.close();
  return count;
}

function onMessages(stream: ClientHttp2Stream, take: (message: Buffer) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  stream.on("data", (chunk: Buffer) => {
    let bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (bytes.length >= PREFIX_BYTES && bytes.length >= PREFIX_BYTES + bytes.readUInt32BE(1)) {
      const end = PREFIX_BYTES + bytes.readUInt32BE(1);
      take(bytes.subarray(PREFIX_BYTES, end));
      bytes = bytes.subarray(end);
    }
    rest = bytes;
  });
}

/** How many fields with a length a message has. */
function countFields(message: Buffer): number {
  let count = 0;
  for (let at = 0; at < message.length; count++) {
    at += 1;
    let length = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = message[at++] ?? 0;
      length |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    at += length;
  }
  return count;
}

serveParent((request) => generate(request as StreamLoadRequest));

import { once } from "node:events";
import { type ClientHttp2Session, connect } from "node:http2";
import { serveParent } from "./child.ts";

/** What the generator is asked to do. */
export interface LoadRequest {
  readonly port: number;
  /** `/package.Service/Method`. */
  readonly path: string;
  /** The API key of every request. */
  readonly credential: string;
  /** The request message, base64. */
  readonly body: string;
  readonly forMs: number;
  /** Requests under way at once, over four connections. */
  readonly concurrency: number;
}

/** What it did. */
export interface LoadReport {
  readonly requests: number;
  /** Requests that did not end with `grpc-status: 0`. */
  readonly failed: number;
  readonly seconds: number;
}

const connections = 4;

/** Unary gRPC calls in a closed loop on bare node:http2, which costs the caller far less than a gRPC client. */
async function generate({ port, path, credential, body, forMs, concurrency }: LoadRequest): Promise<LoadReport> {
  const sessions = Array.from({ length: connections }, () => connect(`http://127.0.0.1:${port}`));
  await Promise.all(sessions.map((session) => once(session, "connect")));
  const headers = {
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
    authorization: `Bearer ${credential}`,
  };
  const message = frame(Buffer.from(body, "base64"));
  const count = { requests: 0, failed: 0 };
  const begunAt = performance.now();
  const endAt = begunAt + forMs;
  const loop = async (session: ClientHttp2Session): Promise<void> => {
    while (performance.now() < endAt) {
      const status = await call(session, headers, message);
      count.requests++;
      if (status !== "0") count.failed++;
    }
  };
  const each = Math.ceil(concurrency / connections);
  await Promise.all(sessions.flatMap((session) => Array.from({ length: each }, () => loop(session))));
  const seconds = (performance.now() - begunAt) / 1_000;
  for (const session of sessions) session.close();
  return { ...count, seconds };
}

function call(session: ClientHttp2Session, headers: Record<string, string>, message: Buffer): Promise<unknown> {
  return new Promise((resolve) => {
    let status: unknown = "none";
    const stream = session.request(headers);
    stream.on("response", (head) => {
      status = head["grpc-status"] ?? status;
    });
    stream.on("trailers", (trailers) => {
      status = trailers["grpc-status"] ?? status;
    });
    stream.on("error", () => undefined);
    stream.on("close", () => resolve(status));
    stream.resume();
    stream.end(message);
  });
}

/** A gRPC message on the wire: not compressed, four bytes of length, the message. */
function frame(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

serveParent((request) => generate(request as LoadRequest));

import { once } from "node:events";
import { type ClientHttp2Session, connect } from "node:http2";
import { serveParent } from "./child.ts";
import type { LoadReport } from "./rounds.ts";
import { callUnary, frame } from "./unary-call.ts";

/** What the generator is asked to do. */
export interface LoadRequest {
  readonly port: number;
  /** `/package.Service/Method`. */
  readonly path: string;
  /** The API key of every request. */
  readonly credential: string;
  /** The request messages, sent in turn, base64. */
  readonly bodies: readonly string[];
  readonly forMs: number;
  /** Requests under way at once, over four connections. */
  readonly concurrency: number;
}

const connections = 4;

/** Unary gRPC calls in a closed loop on bare node:http2, which costs the caller far less than a gRPC client. */
async function generate({ port, path, credential, bodies, forMs, concurrency }: LoadRequest): Promise<LoadReport> {
  const sessions = Array.from({ length: connections }, () => connect(`http://127.0.0.1:${port}`));
  await Promise.all(sessions.map((session) => once(session, "connect")));
  const headers = {
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
    authorization: `Bearer ${credential}`,
  };
  const messages = bodies.map((body) => frame(Buffer.from(body, "base64")));
  const count = { requests: 0, failed: 0 };
  const begunAt = performance.now();
  const endAt = begunAt + forMs;
  const loop = async (session: ClientHttp2Session): Promise<void> => {
    while (performance.now() < endAt) {
      const message = messages[count.requests++ % messages.length] as Buffer;
      const status = await callUnary(session, headers, message);
      if (status !== "0") count.failed++;
    }
  };
  const each = Math.ceil(concurrency / connections);
  await Promise.all(sessions.flatMap((session) => Array.from({ length: each }, () => loop(session))));
  const seconds = (performance.now() - begunAt) / 1_000;
  for (const session of sessions) session.close();
  return { ...count, seconds };
}

serveParent((request) => generate(request as LoadRequest));

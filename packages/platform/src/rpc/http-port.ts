import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Session } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { listenError } from "./server.ts";

/** Streams of one HTTP/2 connection that are served at once. */
const MAX_STREAMS = 100;
/** Requests of an HTTP/1.1 connection that are served at once: no browser pipelines, and some clients a few. */
const MAX_PIPELINE = 10;
/** Limits of HTTP/1.1: times in milliseconds, sizes in bytes. */
const http1Options = {
  maxHeaderSize: 8 * 1024,
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  keepAliveTimeout: 65_000,
  connectionsCheckingInterval: 5_000,
};
/**
 * Limits of HTTP/2; `maxSessionMemory` in MB. More than `streamResetBurst` resets, or so many a second, end the connection:
 * what one packet of them has made us begin must not keep others waiting.
 */
const http2Options = {
  settings: { maxConcurrentStreams: MAX_STREAMS, maxHeaderListSize: 8 * 1024, enablePush: false },
  maxSessionMemory: 10,
  streamResetBurst: 30,
  streamResetRate: 10,
};
const MAX_CONNECTIONS = 2_000;
/** How long a connection may last, and how long what it has under way then, in milliseconds: callers come again, balanced anew. */
const MAX_AGE_MS = 600_000;
const AGE_GRACE_MS = 10_000;
/** An HTTP/2 connection that is silent for so long is asked whether it lives, and has so long to answer, in milliseconds. */
const SILENCE_MS = 65_000;
const PING_TIMEOUT_MS = 10_000;

/** What every HTTP/2 connection begins with (RFC 9113, section 3.4); no method of HTTP/1.1 begins so. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** Times that a test makes shorter, in milliseconds. */
export interface HttpPortTimes {
  readonly maxAgeMs?: number;
  readonly ageGraceMs?: number;
  readonly headersTimeoutMs?: number;
}

/** HTTP/1.1 and HTTP/2 in cleartext on one port. */
export interface HttpPort {
  /** @throws an Error as {@link listenError} makes it when the port can't be had. */
  listen(host: string, port: number): Promise<number>;
  /** Takes no new connections, has the open ones end when they are done; resolves when all are closed. */
  drain(): Promise<void>;
  /** Closes all connections at once. */
  closeAll(): void;
}

/**
 * Serves both versions of HTTP without TLS. The first bytes of a connection say which it speaks: HTTP/2 is with prior
 * knowledge, as proxies speak it to their backends; there is no upgrade. To `listener` both look like HTTP/1.1, but for
 * the version, by Node's compatibility layer.
 */
export function createHttpPort(listener: RequestListener, times: HttpPortTimes = {}): HttpPort {
  const { maxAgeMs = MAX_AGE_MS, ageGraceMs = AGE_GRACE_MS, headersTimeoutMs = http1Options.headersTimeout } = times;
  const connections = new Map<Socket, Connection>();
  const server = createServer({ ...http1Options, headersTimeout: headersTimeoutMs }, (request, response) => {
    const connection = connections.get(request.socket);
    // Nobody pipelines but to flood: Node would begin whatever a packet holds.
    if (connection !== undefined && connection.responses.size >= MAX_PIPELINE) {
      request.on("error", () => {});
      return void request.socket.destroy();
    }
    connection?.responses.add(response);
    response.once("close", () => {
      connection?.responses.delete(response);
      if (connection?.ending) end(connection);
    });
    if (connection?.ending) closeAfter(response);
    take(listener, request, response);
  });
  server.maxConnections = MAX_CONNECTIONS;
  const http2 = createHttp2Server(http2Options, (request, response) =>
    take(listener, request as unknown as IncomingMessage, response as unknown as ServerResponse),
  );

  // Node's own listener of the port serves HTTP/1.1: it gets those connections only.
  const [serveHttp1] = server.listeners("connection");
  server.removeAllListeners("connection");
  server.on("connection", (socket: Socket) => {
    const connection: Connection = { socket, responses: new Set(), session: undefined, ending: false };
    connections.set(socket, connection);
    const age = setTimeout(() => end(connection), maxAgeMs);
    const cut = setTimeout(() => socket.destroy(), maxAgeMs + ageGraceMs);
    socket.once("close", () => {
      connections.delete(socket);
      clearTimeout(age);
      clearTimeout(cut);
    });
    recognise(socket, headersTimeoutMs, (speaksHttp2) => {
      if (!speaksHttp2) return serveHttp1?.call(server, socket);
      // Emitted while the connection is handed over.
      http2.once("session", (session) => {
        connection.session = session;
        keepAlive(session);
      });
      http2.emit("connection", socket);
    });
  });

  return {
    listen(host, port) {
      return new Promise((resolve, reject) => {
        server.once("error", (error) => reject(listenError(host, port, error)));
        server.listen({ host, port }, () => resolve((server.address() as AddressInfo).port));
      });
    },
    async drain() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const connection of connections.values()) end(connection);
      await closed;
    },
    closeAll() {
      for (const socket of connections.keys()) socket.destroy();
    },
  };
}

interface Connection {
  readonly socket: Socket;
  /** Answers of HTTP/1.1 under way. */
  readonly responses: Set<ServerResponse>;
  /** Set when it speaks HTTP/2. */
  session: ServerHttp2Session | undefined;
  ending: boolean;
}

/** Ends a connection when what it has under way is done. */
function end(connection: Connection): void {
  const { socket, responses, session } = connection;
  connection.ending = true;
  for (const response of responses) closeAfter(response);
  if (session !== undefined) session.close();
  else if (responses.size === 0) socket.destroySoon();
}

function closeAfter(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader("connection", "close");
}

/** Hands a request over; its errors are those of its connection, which whoever reads the body hears of. */
function take(listener: RequestListener, request: IncomingMessage, response: ServerResponse): void {
  // A request of a pipeline can fail when nobody listens any more, or not yet: without this it would end the process.
  request.on("error", () => {});
  listener(request, response);
}

/** Waits for the first bytes, which stay to be read, and tells by them which version of HTTP they are. */
function recognise(socket: Socket, withinMs: number, then: (speaksHttp2: boolean) => void): void {
  const timer = setTimeout(() => socket.destroy(), withinMs);
  const ignore = () => {};
  const done = (): void => {
    clearTimeout(timer);
    socket.off("readable", look);
    socket.off("end", done);
    socket.off("error", ignore);
  };
  let seen: Buffer = Buffer.alloc(0);
  const look = (): void => {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) return;
    seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
    const length = Math.min(seen.length, PREFACE.length);
    const same = seen.subarray(0, length).equals(PREFACE.subarray(0, length));
    // A few bytes of the preface may still become anything.
    if (same && length < PREFACE.length) return;
    done();
    socket.unshift(seen);
    then(same);
  };
  socket.on("readable", look);
  socket.once("end", () => {
    done();
    socket.destroy();
  });
  socket.on("error", ignore);
  socket.once("close", done);
}

/** Ends a connection of HTTP/2 whose other side is gone or has nothing to ask. */
function keepAlive(session: ServerHttp2Session): void {
  let streams = 0;
  session.on("stream", (stream) => {
    streams += 1;
    stream.once("close", () => {
      streams -= 1;
    });
  });
  session.setTimeout(SILENCE_MS, () => {
    if (streams === 0) return session.close();
    const dead = setTimeout(() => session.destroy(), PING_TIMEOUT_MS);
    const answered = session.ping((error) => {
      if (error === null) clearTimeout(dead);
    });
    if (!answered) session.destroy();
    session.once("close", () => clearTimeout(dead));
  });
}

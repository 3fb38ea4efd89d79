import type { ServerOptions as Http2Options, IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Readable, Writable } from "node:stream";
import { type Message, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import type { ServiceError } from "../errors.ts";
import type { Logger } from "../logging.ts";
import type { Exchange } from "./call.ts";
import { decodeRequest } from "./codec.ts";
import { createArrivals, guardArrival } from "./grpc-guard.ts";
import { serveUnary } from "./grpc-unary.ts";
import type { ServiceBinding } from "./handlers.ts";
import { fromMetadata, toGrpcStatus, toMetadata } from "./metadata.ts";
import type { Pipeline, Route, RunningCall } from "./pipeline.ts";
import { createOpenCalls, hostPort, LAST_WORDS_MS, listenError, type OpenCalls, type RpcServer } from "./server.ts";
import { serverCredentials, type TlsIdentity } from "./tls.ts";

/** Settings of the HTTP/2 server; sizes and times that grpc-js leaves unlimited. */
const serverOptions: grpc.ServerOptions = {
  // Streams of one connection share this: enough that a client's long-lived streams never keep its unary calls waiting.
  "grpc.max_concurrent_streams": 1_000,
  "grpc-node.max_session_memory": 10,
  "grpc.max_connection_age_ms": 600_000,
  "grpc.max_connection_age_grace_ms": 10_000,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
};

/**
 * More resets of streams than this at once, or so many a second for long, end their connection: each has made us begin a
 * call. grpc-js has no option for it, but hands what it has in this field to node:http2; a test fails when that changes.
 */
const resetLimits: Http2Options = { streamResetBurst: 100, streamResetRate: 33 };

/** What {@link createGrpcServer} needs. */
export interface GrpcServerOptions {
  /** The services to serve, health and reflection among them. */
  bindings: readonly ServiceBinding[];
  pipeline: Pipeline;
  host: string;
  /** 0 takes a free one. */
  port: number;
  /** Makes the port speak TLS, to callers with a certificate of the same authority only; cleartext without it. */
  tls?: TlsIdentity | undefined;
  logger: Logger;
}

// grpc-js writes to the console what it also tells us, such as a port that is taken.
grpc.setLogVerbosity(grpc.logVerbosity.NONE);

/** Serves bindings over gRPC (HTTP/2) with grpc-js. */
export function createGrpcServer({ bindings, pipeline, host, port, tls, logger }: GrpcServerOptions): RpcServer {
  const calls = createOpenCalls();
  const routes = bindings.flatMap((binding) => pipeline.routes(binding));
  const arrivals = createArrivals();
  const server = new grpc.Server({
    ...serverOptions,
    // What any method takes; the guard narrows it to what the called one does.
    "grpc.max_receive_message_length": Math.max(0, ...routes.map(({ maxRequestBytes }) => maxRequestBytes)),
    interceptors: [guardArrival(routes, arrivals)],
    // Its books about each call cost as much as the call itself; nobody reads them.
    "grpc.enable_channelz": 0,
  });
  Object.assign((server as unknown as { readonly commonServerOptions: Http2Options }).commonServerOptions, resetLimits);
  takeUnaryCalls(server, serveUnary(routes, calls, arrivals));
  for (const { service } of bindings) {
    const own = routes.filter(({ method }) => method.parent === service);
    server.addService(
      Object.fromEntries(own.map((route) => [route.method.localName, definition(route)])),
      Object.fromEntries(own.map((route) => [route.method.localName, serve(route, calls)])),
    );
  }

  return {
    start() {
      return new Promise((resolve, reject) => {
        server.bindAsync(hostPort(host, port), serverCredentials(tls), (error, bound) => {
          if (error === null) resolve({ port: bound });
          else reject(listenError(host, port, error));
        });
      });
    },
    async stop(graceMs) {
      const drained = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      calls.endStreams();
      const grace = setTimeout(() => {
        logger.warn({ calls: calls.endAll(), graceMs }, "gRPC server: calls outlived the grace and were cut");
      }, graceMs);
      const force = setTimeout(() => server.forceShutdown(), graceMs + LAST_WORDS_MS);
      await drained;
      clearTimeout(grace);
      clearTimeout(force);
    },
  };
}

/** What grpc-js gives node:http2 for its streams; no public way leads there, and a test fails when a release changes it. */
interface StreamTaker {
  _streamHandler(interceptors: unknown, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void;
}

/** Lets `take` have every call first; what it does not take (it says false) is grpc-js's. */
function takeUnaryCalls(server: grpc.Server, take: ReturnType<typeof serveUnary>): void {
  const taker = server as unknown as StreamTaker;
  const others = taker._streamHandler;
  taker._streamHandler = function (this: StreamTaker, interceptors, stream, headers) {
    if (!take(stream, headers)) others.call(this, interceptors, stream, headers);
  };
}

const asIs = (bytes: Buffer): Buffer => bytes;

/** Messages pass grpc-js as bytes: it answers INTERNAL where decoding fails, we say what was wrong. */
function definition({ name, method }: Route): grpc.MethodDefinition<Buffer, Buffer> {
  return {
    path: `/${name}`,
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
}

/** What grpc-js's call types, one per kind of method, have in common. */
interface SurfaceCall {
  readonly metadata: grpc.Metadata;
  getPeer(): string;
  getDeadline(): grpc.Deadline;
  sendMetadata(metadata: grpc.Metadata): void;
  once(event: "cancelled", listener: () => void): unknown;
}

/** The handler of a method in the form that grpc-js wants for its kind. */
function serve(route: Route, calls: OpenCalls): grpc.UntypedHandleCall {
  const one = (call: SurfaceCall, receive: Exchange["receive"], respond: grpc.sendUnaryData<Buffer>) =>
    answerOne(route, calls, call, receive, respond);
  const many = (call: ResponseStream, receive: Exchange["receive"]) => answerMany(route, calls, call, receive);
  const handlers = {
    unary: (call: grpc.ServerUnaryCall<Buffer, Buffer>, respond: grpc.sendUnaryData<Buffer>) =>
      one(call, () => decodeRequest(route, call.request), respond),
    client_streaming: (call: grpc.ServerReadableStream<Buffer, Buffer>, respond: grpc.sendUnaryData<Buffer>) =>
      one(call, () => decodeAll(route, call), respond),
    server_streaming: (call: grpc.ServerWritableStream<Buffer, Buffer>) =>
      many(call, () => decodeRequest(route, call.request)),
    bidi_streaming: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => many(call, () => decodeAll(route, call)),
  };
  return handlers[route.method.methodKind];
}

function answerOne(
  route: Route,
  calls: OpenCalls,
  surface: SurfaceCall,
  receive: Exchange["receive"],
  respond: grpc.sendUnaryData<Buffer>,
): void {
  let reply: Buffer | undefined;
  const { call, done } = begin(route, calls, surface, receive, (bytes) => {
    reply = bytes;
  });
  const sendHeaders = () => {
    if (call.sentHeaders !== undefined) surface.sendMetadata(toMetadata(call.sentHeaders));
  };
  done.then(
    () => {
      sendHeaders();
      respond(null, reply, call.sentTrailers && toMetadata(call.sentTrailers));
    },
    (error: ServiceError) => {
      sendHeaders();
      respond(toGrpcStatus(error, call.sentTrailers));
    },
  );
}

type ResponseStream = SurfaceCall & Writable & { end(metadata?: grpc.Metadata): unknown };

/**
 * How many bytes of a stream's answer may wait for its reader before the handler waits too. grpc-js counts messages, and
 * would take sixteen of any size.
 */
const MAX_UNSENT_BYTES = 64 * 1024;

function answerMany(route: Route, calls: OpenCalls, stream: ResponseStream, receive: Exchange["receive"]): void {
  let headersSent = false;
  let unsent = 0;
  const sendHeaders = () => {
    if (!headersSent && call.sentHeaders !== undefined) stream.sendMetadata(toMetadata(call.sentHeaders));
    headersSent = true;
  };
  const { call, done } = begin(route, calls, stream, receive, (bytes) => {
    sendHeaders();
    unsent += bytes.length;
    const { promise: taken, resolve } = Promise.withResolvers<void>();
    const room = stream.write(bytes, () => {
      unsent -= bytes.length;
      resolve();
    });
    return room && unsent <= MAX_UNSENT_BYTES ? undefined : taken;
  });
  done.then(
    () => stream.end(call.sentTrailers && toMetadata(call.sentTrailers)),
    (error: ServiceError) => {
      sendHeaders();
      stream.emit("error", toGrpcStatus(error, call.sentTrailers));
    },
  );
}

/** Starts the pipeline for a call of grpc-js and tells it when the caller leaves. */
function begin(
  route: Route,
  calls: OpenCalls,
  surface: SurfaceCall,
  receive: Exchange["receive"],
  send: (bytes: Buffer) => void | Promise<void>,
): RunningCall {
  let headers: Headers | undefined;
  const deadline = Number(surface.getDeadline());
  const running = route.start({
    transport: "grpc",
    get headers() {
      headers ??= fromMetadata(surface.metadata);
      return headers;
    },
    get peer() {
      return surface.getPeer();
    },
    deadlineAt: Number.isFinite(deadline) ? deadline : undefined,
    receive,
    send: (message) => send(toBuffer(toBinary(route.method.output, message))),
    sendEncoded: (bytes) => send(toBuffer(bytes)),
  });
  calls.add(running);
  // grpc-js says "cancelled" at the end of every call, and also when the client's deadline passes.
  surface.once("cancelled", () => calls.callerLeft(running));
  return running;
}

async function* decodeAll(route: Route, stream: Readable): AsyncGenerator<Message> {
  // Left open at the end of the input: in a bidi call the same object still takes the answer.
  for await (const bytes of stream.iterator({ destroyOnReturn: false })) yield decodeRequest(route, bytes);
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

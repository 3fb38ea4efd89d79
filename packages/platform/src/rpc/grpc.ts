import type { ServerOptions as Http2Options } from "node:http2";
import * as grpc from "@grpc/grpc-js";
import type { Logger } from "../logging.ts";
import { serveCalls, type TakeCall } from "./grpc-calls.ts";
import { createArrivals } from "./grpc-guard.ts";
import type { ServiceBinding } from "./handlers.ts";
import type { Pipeline } from "./pipeline.ts";
import { createOpenCalls, hostPort, LAST_WORDS_MS, listenError, type RpcServer } from "./server.ts";
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

/**
 * Serves bindings over gRPC (HTTP/2). grpc-js keeps the port and its connections (TLS, keepalive, ages, the end), and
 * refuses what is no call of a method; the calls are served by `grpc-calls.ts`.
 */
export function createGrpcServer({ bindings, pipeline, host, port, tls, logger }: GrpcServerOptions): RpcServer {
  const calls = createOpenCalls();
  const routes = bindings.flatMap((binding) => pipeline.routes(binding));
  const server = new grpc.Server({
    ...serverOptions,
    // Its books about each call cost as much as the call itself; nobody reads them.
    "grpc.enable_channelz": 0,
  });
  Object.assign((server as unknown as { readonly commonServerOptions: Http2Options }).commonServerOptions, resetLimits);
  takeCalls(server, serveCalls(routes, calls, createArrivals()));

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
  _streamHandler(interceptors: unknown, ...told: Parameters<TakeCall>): void;
}

/** Lets `take` have every call first; what it does not take (it says false) is grpc-js's. */
function takeCalls(server: grpc.Server, take: TakeCall): void {
  const taker = server as unknown as StreamTaker;
  const others = taker._streamHandler;
  taker._streamHandler = function (this: StreamTaker, interceptors, ...told) {
    if (!take(...told)) others.call(this, interceptors, ...told);
  };
}

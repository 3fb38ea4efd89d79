import type { Credential } from "../credentials.ts";
import { platformError } from "../errors.ts";
import { createHealth, type HealthService } from "../health.ts";
import { createLogger, type Logger } from "../logging.ts";
import type { TrustedProxies } from "../rpc/address.ts";
import { createGrpcServer } from "../rpc/grpc.ts";
import { type Handlers, implement, type ServiceBinding } from "../rpc/handlers.ts";
import { createPipeline, type Pipeline } from "../rpc/pipeline.ts";
import { createReflection } from "../rpc/reflection.ts";
import type { RpcServer } from "../rpc/server.ts";
import { createWebServer } from "../rpc/web.ts";
import { EchoService, type EchoServiceDesc, echoScope } from "./echo-service.ts";

/** What handlers of the echo service need: nothing. */
export type EchoHandlers = Handlers<EchoServiceDesc, undefined>;

/** The echo service on real ports. */
export interface EchoServer {
  readonly pipeline: Pipeline;
  readonly bindings: readonly ServiceBinding[];
  readonly health: HealthService;
  readonly grpc: RpcServer;
  readonly web: RpcServer;
  /** `127.0.0.1:<port>`. */
  readonly grpcAddress: string;
  /** `http://127.0.0.1:<port>`. */
  readonly webUrl: string;
  stop(): Promise<void>;
}

/** What may differ from a generous pipeline that logs nothing. */
export interface EchoPipelineOptions {
  maxConcurrent?: number;
  maxStreams?: number;
  trustedProxies?: TrustedProxies | undefined;
  logger?: Logger;
}

/** What may differ from a server that echoes. */
export interface EchoServerOptions extends EchoPipelineOptions {
  handlers?: Partial<EchoHandlers>;
}

/** Keys that the echo server knows: who has all scopes, and who has none. */
export const echoKeys = { allowed: "allowed-key", powerless: "powerless-key" };

const echoes: EchoHandlers = {
  echo: async (_ctx, call, { text, count }) => ({ text: `${call.tenant}:${text}`, count }),
  write: async (_ctx, _call, { text }) => ({ text }),
  batch: async (_ctx, _call, { text }) => ({ count: text.length }),
  hurry: async (_ctx, _call, { text }) => ({ text }),
  forgotten: async (_ctx, _call, { text }) => ({ text }),
  anyone: async (_ctx, _call, { text }) => ({ text }),
  async *expand(_ctx, _call, { text, count }) {
    for (let i = 0; i < count; i++) yield { text, count: i };
  },
  async *session(_ctx, _call, { text }) {
    yield { text };
  },
  async collect(_ctx, _call, requests) {
    const texts: string[] = [];
    for await (const { text } of requests) texts.push(text);
    return { text: texts.join(" "), count: texts.length };
  },
  async *chat(_ctx, _call, requests) {
    for await (const { text } of requests) yield { text: text.toUpperCase() };
  },
};

const silent = createLogger({ level: "silent", name: "echo" });

/** A pipeline that knows the {@link echoKeys}. */
export function echoPipeline(options: EchoPipelineOptions = {}): Pipeline {
  const { maxConcurrent = 100, maxStreams = 100, trustedProxies, logger = silent } = options;
  return createPipeline({ authenticate, maxConcurrent, maxStreams, trustedProxies, logger });
}

/** The echo service with some of its handlers replaced. */
export function echoBinding(handlers: Partial<EchoHandlers> = {}): ServiceBinding {
  return implement(EchoService, undefined, { ...echoes, ...handlers });
}

/** Starts the echo service with health and reflection on free ports of both transports. */
export async function startEchoServer(options: EchoServerOptions = {}): Promise<EchoServer> {
  const { logger = silent } = options;
  const pipeline = echoPipeline(options);
  const echo = echoBinding(options.handlers);
  const health = createHealth([echo]);
  const bindings = [echo, health.binding, ...createReflection([echo, health.binding])];
  const place = { bindings, pipeline, host: "127.0.0.1", port: 0, logger };
  const grpc = createGrpcServer(place);
  const web = createWebServer(place);
  const [grpcPort, webPort] = await Promise.all([grpc.start(), web.start()]);
  return {
    pipeline,
    bindings,
    health,
    grpc,
    web,
    grpcAddress: `127.0.0.1:${grpcPort.port}`,
    webUrl: `http://127.0.0.1:${webPort.port}`,
    async stop() {
      await Promise.all([grpc.stop(0), web.stop(0)]);
    },
  };
}

async function authenticate(headers: Headers): Promise<Credential> {
  const key = headers.get("authorization")?.replace("Bearer ", "");
  if (key === undefined) throw platformError("CREDENTIAL_MISSING", "no API key");
  if (key !== echoKeys.allowed && key !== echoKeys.powerless)
    throw platformError("CREDENTIAL_INVALID", "unknown API key");
  const scopes = new Set(key === echoKeys.allowed ? [echoScope] : []);
  return { id: key, tenant: "acme", role: "tester", scopes, kind: "api_key" };
}

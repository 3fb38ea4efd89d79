import type { RequestListener } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { createHealth } from "./health.ts";
import { answerJson } from "./json-document.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Logger } from "./logging.ts";
import { createGrpcServer } from "./rpc/grpc.ts";
import type { ServiceBinding } from "./rpc/handlers.ts";
import type { Pipeline } from "./rpc/pipeline.ts";
import { createReflection } from "./rpc/reflection.ts";
import type { RpcServer } from "./rpc/server.ts";
import type { TlsIdentity } from "./rpc/tls.ts";
import { createWebServer } from "./rpc/web.ts";

/** What {@link serve} needs. */
export interface ServeOptions {
  /** The address that the ports listen on. */
  readonly host: string;
  /** Port of gRPC, health and reflection; 0 takes a free one. */
  readonly grpcPort: number;
  /** Port of Connect JSON, gRPC-Web and `GET /health`, cleartext HTTP/1.1 and HTTP/2; 0 takes a free one. */
  readonly webPort: number;
  /** Makes the gRPC port speak TLS, to callers with a certificate of the same authority only. */
  readonly tls?: TlsIdentity | undefined;
  readonly bindings: readonly ServiceBinding[];
  readonly pipeline: Pipeline;
  /** How long, in milliseconds, calls are still taken at the end after health has said NOT_SERVING: balancers look away. */
  readonly lookAwayMs: number;
  /** How long, in milliseconds, calls under way may take to finish at the end. */
  readonly graceMs: number;
  /** JSON for everyone on the web port, by path; see {@link answerJson}. */
  readonly documents?: Readonly<Record<string, () => Promise<unknown>>>;
  /** Whether it decides on facts older than they should be; told by `GET /health`, and no reason to take it out. */
  readonly isDegraded?: () => boolean;
  /** What has to be done when the ports are known and before anybody is told that it serves. */
  readonly beforeServing?: (ports: { grpc: number; web: number }) => Promise<void>;
  readonly logger: Logger;
  /** Learns how to stop each part. */
  readonly lifecycle: Lifecycle;
}

/**
 * Opens the ports, then says that it serves. At the end: health says NOT_SERVING, new calls are still taken for
 * `lookAwayMs`, then connections are told to go and calls under way finish.
 *
 * @throws Error that names the address when a port can't be had.
 */
export async function serve(options: ServeOptions): Promise<{ grpc: number; web: number }> {
  const { host, bindings, pipeline, graceMs, logger, lifecycle } = options;
  const health = createHealth(bindings);
  const bound = [...bindings, health.binding];
  const grpc = createGrpcServer({
    bindings: [...bound, ...createReflection(bound)],
    pipeline,
    host,
    port: options.grpcPort,
    tls: options.tls,
    logger,
  });
  let serving = false;
  const documents = Object.entries(options.documents ?? {});
  const routes = {
    "GET /health": answerHealth(() => serving, options.isDegraded),
    ...Object.fromEntries(documents.map(([path, load]) => [`GET ${path}`, answerJson(load, logger)])),
  };
  const web = createWebServer({ bindings: bound, pipeline, host, port: options.webPort, routes, logger });
  const open: RpcServer[] = [];
  lifecycle.defer("servers", async () => void (await Promise.all(open.map((server) => server.stop(graceMs)))));
  const start = async (server: RpcServer): Promise<number> => {
    const { port } = await server.start();
    open.push(server);
    return port;
  };
  const ports = { grpc: await start(grpc), web: await start(web) };
  const say = (value: boolean) => {
    serving = value;
    for (const name of ["", ...bindings.map(({ service }) => service.typeName)]) health.setServing(name, value);
  };
  lifecycle.defer("health", async () => {
    say(false);
    await delay(options.lookAwayMs);
  });
  await options.beforeServing?.(ports);
  say(true);
  return ports;
}

/** A degraded process serves still: taking it out would leave its callers with nobody. */
function answerHealth(isServing: () => boolean, isDegraded: () => boolean = () => false): RequestListener {
  return (_request, response) => {
    const serving = isServing();
    response.writeHead(serving ? 200 : 503, { "content-type": "application/json", "cache-control": "no-store" });
    response.end(JSON.stringify({ status: serving ? "SERVING" : "NOT_SERVING", degraded: isDegraded() }));
  };
}

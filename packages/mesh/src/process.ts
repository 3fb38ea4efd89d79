import { readFile } from "node:fs/promises";
import type { Transport } from "@connectrpc/connect";
import { ConfigError, parseConfig } from "@licet/platform/config";
import type { EventBus } from "@licet/platform/events/bus";
import { createLifecycle, type Lifecycle } from "@licet/platform/lifecycle";
import { createLogger, type Logger } from "@licet/platform/logging";
import { type Channel, createChannel } from "@licet/platform/rpc/client";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { hostPort } from "@licet/platform/rpc/server";
import { serve } from "@licet/platform/serve";
import { startTelemetry } from "@licet/platform/telemetry";
import type { z } from "zod";
import { openBus } from "./bus.ts";
import { createLicensingCredentials, followCredentials, type LicensingCredentials } from "./credentials.ts";
import { type ProcessSettings, processSettings, tlsIdentity } from "./settings.ts";

/** A shutdown that takes longer is cut off; the next start recovers. */
const STOP_WITHIN_MS = 14_000;

/** How long calls under way may take to finish at the end, in milliseconds. */
const GRACE_MS = 8_000;

/** What a service is built from in a process of its own. */
export interface Parts {
  readonly bus: EventBus;
  readonly logger: Logger;
  /** Reaches another service with the mesh's key. */
  connect(address: string): Transport;
  /** Registers how to close something that the service was given; it is closed after the service. */
  defer(name: string, stop: () => Promise<void>): void;
}

/** A service as this module runs it. */
export interface Service {
  readonly bindings: readonly ServiceBinding[];
  /** Resolves when the service can serve. */
  start(): Promise<void> | void;
  stop(): Promise<void> | void;
  /** Whether it decides on facts older than they should be. */
  degraded?(): boolean;
  /** JSON for everyone on the web port, by path. */
  readonly documents?: Readonly<Record<string, () => Promise<unknown>>>;
}

/** A service and how to build it. */
export interface ServiceProcess<S extends z.ZodObject> {
  /** As in `licensing`. */
  readonly name: string;
  /** The settings of this service, beside {@link processSettings}. */
  readonly settings: S;
  /** Builds the service; nothing happens before its `start`. */
  create(settings: z.output<S>, parts: Parts): Service;
  /** Where API keys are asked for; undefined in licensing, which has them itself. */
  licensing?(settings: z.output<S>): string;
}

/** What a process says, as one line of JSON on standard output, once it serves. */
export interface Ready {
  readonly service: string;
  readonly grpcUrl: string;
  readonly webUrl: string;
  readonly metricsUrl: string;
  readonly pid: number;
}

/**
 * Runs a service as this process, with settings from the environment, until a signal ends it: SIGTERM, SIGINT, SIGHUP,
 * or the end of the process that started it with an IPC channel. Migrations have to have run. The ports open when the
 * service is ready; until then only `GET /metrics` answers. The exit code is 0 after a signal, 1 when it could not start,
 * with one sentence on standard error, or when its end got stuck.
 */
export async function runService<S extends z.ZodObject>(definition: ServiceProcess<S>): Promise<void> {
  let lifecycle: Lifecycle | undefined;
  let ending = false;
  const end = async (exitCode: number): Promise<void> => {
    if (ending) return;
    ending = true;
    lifecycle?.watchdog(STOP_WITHIN_MS);
    await lifecycle?.shutdown();
    process.exit(exitCode);
  };
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => void end(0));
  process.on("disconnect", () => void end(0));
  try {
    const { common, own } = readSettings(definition.settings, process.env);
    const logger = createLogger({ level: common.LICET_LOG_LEVEL, name: `licet-${definition.name}` });
    lifecycle = createLifecycle({ logger });
    const ready = await start({ definition, common, own, logger, lifecycle });
    process.stdout.write(`${JSON.stringify(ready)}\n`);
  } catch (error) {
    // A signal during the start makes the start fail: that is no failure.
    if (ending) return;
    process.stderr.write(`licet ${definition.name}: ${error instanceof Error ? error.message : String(error)}\n`);
    await end(1);
  }
}

/** Reads the common settings and those of the service. @throws ConfigError with the problems of both. */
export function readSettings<S extends z.ZodObject>(
  settings: S,
  env: Readonly<Record<string, string | undefined>>,
): { common: ProcessSettings; own: z.output<S> } {
  const problems = new Set<string>();
  const read = <T extends z.ZodObject>(schema: T): z.output<T> | undefined => {
    try {
      return parseConfig(schema, env);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      for (const problem of error.problems) problems.add(problem);
      return undefined;
    }
  };
  const common = read(processSettings);
  const own = read(settings);
  if (common === undefined || own === undefined) throw new ConfigError([...problems]);
  return { common, own };
}

interface Start<S extends z.ZodObject> {
  readonly definition: ServiceProcess<S>;
  readonly common: ProcessSettings;
  readonly own: z.output<S>;
  readonly logger: Logger;
  readonly lifecycle: Lifecycle;
}

async function start<S extends z.ZodObject>({ definition, common, own, logger, lifecycle }: Start<S>): Promise<Ready> {
  const { LICET_HOST: host, MESH_KEY: meshKey } = common;
  const otlpEndpoint = common.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT;
  const metrics = await startTelemetry({
    serviceName: `licet-${definition.name}`,
    version: await version(),
    host,
    metricsPort: common.METRICS_PORT,
    ...(otlpEndpoint !== undefined && { otlpEndpoint }),
  });
  lifecycle.defer("telemetry", () => metrics.stop());
  const tls = await tlsIdentity(common);
  const bus = await openBus(common, `licet-${definition.name}`, logger);
  lifecycle.defer("event bus", () => bus.stop());
  const channels = new Map<string, Channel>();
  lifecycle.defer("channels", async () => channels.forEach((channel) => void channel.close()));
  const connect = (address: string): Transport => {
    const channel = channels.get(address) ?? createChannel({ address, credential: meshKey, tls });
    channels.set(address, channel);
    return channel;
  };
  const service = definition.create(own, { bus, logger, connect, defer: lifecycle.defer });
  lifecycle.defer(definition.name, async () => service.stop());
  const pipeline = createPipeline({
    authenticate: (headers) => credentials.authenticate(headers),
    authenticateNow: (headers) => credentials.authenticateNow(headers),
    maxConcurrent: common.MAX_CONCURRENT,
    maxStreams: common.MAX_STREAMS,
    trustedProxies: common.TRUSTED_PROXIES,
    logger,
  });
  const { bindings } = service;
  const licensing =
    definition.licensing === undefined
      ? createLocalTransport({ bindings, pipeline, headers: { authorization: `Bearer ${meshKey}` } })
      : connect(definition.licensing(own));
  const credentials: LicensingCredentials = createLicensingCredentials({ licensing, meshKey, logger });
  const following = await followCredentials(credentials, bus, logger);
  lifecycle.defer("API keys", () => following.stop());
  await service.start();
  await following.caughtUp();
  credentials.use.start();
  lifecycle.defer("use of API keys", () => credentials.use.stop());
  const ports = await serve({
    host,
    grpcPort: common.GRPC_PORT,
    webPort: common.WEB_PORT,
    tls,
    bindings,
    pipeline,
    lookAwayMs: common.LOOK_AWAY_MS,
    graceMs: GRACE_MS,
    ...(service.degraded && { isDegraded: service.degraded }),
    ...(service.documents && { documents: service.documents }),
    logger,
    lifecycle,
  });
  const ready: Ready = {
    service: definition.name,
    grpcUrl: `${tls === undefined ? "http" : "https"}://${hostPort(host, ports.grpc)}`,
    webUrl: `http://${hostPort(host, ports.web)}`,
    metricsUrl: `http://${hostPort(host, metrics.port)}/metrics`,
    pid: process.pid,
  };
  logger.info(ready, "ready");
  return ready;
}

async function version(): Promise<string> {
  const text = await readFile(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

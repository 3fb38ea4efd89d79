import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { createLifecycle, type Lifecycle } from "@licet/platform/lifecycle";
import { createLogger, type Logger } from "@licet/platform/logging";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { hostPort } from "@licet/platform/rpc/server";
import { serve } from "@licet/platform/serve";
import { startTelemetry } from "@licet/platform/telemetry";
import type { Config } from "./config.ts";
import { takeDataDir } from "./data-dir.ts";
import { type DatabaseServer, openDatabaseServer } from "./databases.ts";
import { createInsider } from "./insider.ts";
import { ensureKeys } from "./keys.ts";
import { checkPorts } from "./ports.ts";
import { type ApiKeys, type RunInfo, readRunFile, writeRunFile } from "./run-file.ts";
import { loadSecrets } from "./secrets.ts";
import { createServices, type Services } from "./services.ts";

/** How long a start that is given up may take to come to its next step. */
const START_ENDS_WITHIN_MS = 1_500;

/** How long calls under way may take to finish at the end. With the rest of the shutdown it stays below 5 s. */
const GRACE_MS = 2_000;

/** What tests may replace. */
export interface Overrides {
  readonly now?: () => Date;
  readonly logger?: Logger;
  /** Wraps what the ports serve, so that a test can act between a handler's effect and its reply. */
  readonly intercept?: (binding: ServiceBinding) => ServiceBinding;
  /** Prefix of the databases' names on a shared server; `licet` when absent. */
  readonly databasePrefix?: string;
}

/** Everything Licet is, in one process. */
export interface Standalone {
  /**
   * Starts it all and resolves when it serves.
   * @throws Error in one sentence about what is in the way; call `stop` all the same.
   */
  start(): Promise<Started>;
  /** Ends it all in the reverse order, in less than 5 s; nothing acknowledged is lost. */
  stop(): Promise<void>;
  /** Ends the process when it is still there after so many milliseconds; for a `stop` that got stuck. */
  watchdog(ms: number): void;
  /** Resolves with the reason when something it can't do without has ended for good. */
  readonly failed: Promise<Error>;
}

/** A Licet that serves. */
export interface Started {
  readonly run: RunInfo;
  /** Absolute path of the data folder. */
  readonly dataDir: string;
}

/** Creates a Licet on one host; nothing happens before `start`. */
export function createStandalone(config: Config, overrides: Overrides = {}): Standalone {
  const logger = overrides.logger ?? createLogger({ level: config.logLevel, name: "licet" });
  const lifecycle = createLifecycle({ logger });
  const failed = Promise.withResolvers<Error>();
  const ending = new AbortController();
  let starting: Promise<unknown> = Promise.resolve();
  return {
    start() {
      const started = start({ config, overrides, logger, lifecycle, signal: ending.signal, fail: failed.resolve });
      starting = started.catch(() => undefined);
      return started;
    },
    async stop() {
      ending.abort(new Error("stopped during the start"));
      // What a start is about to open could not be closed any more once the shutdown has begun.
      await Promise.race([starting, delay(START_ENDS_WITHIN_MS, undefined, { ref: false })]);
      await lifecycle.shutdown();
    },
    watchdog: (ms) => lifecycle.watchdog(ms),
    failed: failed.promise,
  };
}

interface Parts {
  readonly config: Config;
  readonly overrides: Overrides;
  readonly logger: Logger;
  readonly lifecycle: Lifecycle;
  /** Aborts when the start is to be given up. */
  readonly signal: AbortSignal;
  readonly fail: (error: Error) => void;
}

async function start(parts: Parts): Promise<Started> {
  const { config, logger, lifecycle, signal } = parts;
  const { host, grpcPort, webPort, metricsPort } = config;
  await checkPorts(host, [
    { flag: "--grpc-port", port: grpcPort },
    { flag: "--web-port", port: webPort },
    { flag: "--metrics-port", port: metricsPort },
  ]);
  const dataDir = await takeDataDir(config.dataDir, config.ephemeral);
  lifecycle.defer("data folder", () => dataDir.release());
  const earlier = await readRunFile(dataDir.path);
  const secrets = await loadSecrets(dataDir.path);
  const metrics = await startTelemetry({
    serviceName: "licet-standalone",
    version: await ownVersion(),
    host,
    metricsPort,
    ...(config.otlpEndpoint !== undefined && { otlpEndpoint: config.otlpEndpoint }),
  });
  lifecycle.defer("telemetry", () => metrics.stop());
  signal.throwIfAborted();
  const databases = await openDatabases(parts, dataDir.path);
  signal.throwIfAborted();
  const { publicCalls, trustedProxies } = config;
  const services = await createServices({
    databases,
    secrets,
    now: nowOf(parts),
    publicCalls,
    trustedProxies,
    logger,
    lifecycle,
  });
  const firstKeys = await load(parts, services);
  await services.validation.start();
  const apiKeys = await ensureKeys({
    known: merge(firstKeys, earlier?.apiKeys ?? {}),
    tenants: config.seed ? (await import("./demo.ts")).demoTenants.map(({ tenantId }) => tenantId) : [],
    insider: createInsider(services.bindings, logger),
    authenticate: (headers) => services.credentials.authenticate(headers),
    ensureOperatorKey: (key) => services.licensing.ensureOperatorKey(key),
  });
  signal.throwIfAborted();
  const bindings = parts.overrides.intercept ? services.bindings.map(parts.overrides.intercept) : services.bindings;
  const { pipeline } = services;
  const runOn = (ports: { grpc: number; web: number }): RunInfo => ({
    grpcUrl: `http://${hostPort(host, ports.grpc)}`,
    webUrl: `http://${hostPort(host, ports.web)}`,
    metricsUrl: `http://${hostPort(host, metrics.port)}/metrics`,
    apiKeys,
    pid: process.pid,
  });
  const ports = await serve({
    host,
    grpcPort,
    webPort,
    bindings,
    documents: services.licensing.documents,
    pipeline,
    lookAwayMs: 0,
    graceMs: GRACE_MS,
    isDegraded: services.validation.degraded,
    // Whoever sees it healthy finds its keys.
    beforeServing: (taken) => writeRunFile(dataDir.path, runOn(taken)),
    logger,
    lifecycle,
  });
  const run = runOn(ports);
  logger.info({ grpcUrl: run.grpcUrl, webUrl: run.webUrl, dataDir: dataDir.path }, "ready");
  return { run, dataDir: dataDir.path };
}

function openDatabases(
  { config, overrides, logger, lifecycle, fail }: Parts,
  dataDir: string,
): Promise<DatabaseServer> {
  return openDatabaseServer({
    databaseUrl: config.databaseUrl,
    databasePrefix: overrides.databasePrefix ?? "licet",
    dataDir,
    ephemeral: config.ephemeral,
    logger,
    onEmbedded(server) {
      lifecycle.defer("Postgres", () => server.stop());
      void server.failed.then(fail);
    },
  });
}

/** Loads the demo data where wanted; it is published and counted when this resolves. */
async function load(parts: Parts, { licensing, metering, bindings }: Services): Promise<ApiKeys> {
  const { config, logger, signal } = parts;
  if (!config.seed) return {};
  const { seed } = await import("./seed.ts");
  const keys = await seed({
    insider: createInsider(bindings, logger),
    now: nowOf(parts)(),
    signal,
  });
  await Promise.all([licensing.drain(), metering.drain()]);
  return keys;
}

function nowOf({ overrides }: Parts): () => Date {
  return overrides.now ?? (() => new Date());
}

/** Keys of both; where both have one, the second. */
function merge(first: ApiKeys, second: ApiKeys): ApiKeys {
  const merged: Record<string, Readonly<Record<string, string>>> = { ...first };
  for (const [tenant, keys] of Object.entries(second)) merged[tenant] = { ...merged[tenant], ...keys };
  return merged;
}

async function ownVersion(): Promise<string> {
  const text = await readFile(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

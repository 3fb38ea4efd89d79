import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { createLicensing } from "@licet/licensing";
import { migrations as licensingMigrations } from "@licet/licensing/migrations";
import { createLicensingCredentials, followCredentials } from "@licet/mesh/credentials";
import { topics } from "@licet/mesh/topics";
import { generateApiKey } from "@licet/platform/credentials";
import type { EventBus } from "@licet/platform/events/bus";
import { createKafkaBus } from "@licet/platform/events/kafka";
import { createKafkaAdmin, createKafkaClient } from "@licet/platform/events/kafka-client";
import { applyTopics } from "@licet/platform/events/kafka-topics";
import { newId } from "@licet/platform/ids";
import { createLifecycle } from "@licet/platform/lifecycle";
import { startKafka } from "@licet/platform/local/kafka";
import { createLogger } from "@licet/platform/logging";
import { createChannel } from "@licet/platform/rpc/client";
import { createGrpcServer } from "@licet/platform/rpc/grpc";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { createRedisCache } from "@licet/platform/shared-cache/redis";
import { createTestDatabase } from "@licet/platform/testing/database";
import { startFaultProxy } from "@licet/platform/testing/proxy";
import { startRedis } from "@licet/platform/testing/redis-server";
import { createUsageMetering } from "@licet/usage-metering";
import { migrations as meteringMigrations } from "@licet/usage-metering/migrations";
import { createValidation } from "@licet/validation";
import { type Config, defaults } from "@licet/validation/config";

/** Something that validation leans on. */
export interface Part {
  /** Takes it away: it ends, or nothing reaches it any more. */
  take(): Promise<void>;
  giveBack(): Promise<void>;
}

/** Licensing, usage metering, Postgres, Kafka and Redis, each real and each to be taken away alone. */
export interface Parts {
  readonly licensing: Part;
  /** The network between validation and licensing; licensing itself lives, and publishes. */
  readonly wayToLicensing: Part;
  readonly metering: Part;
  readonly postgres: Part;
  readonly kafka: Part;
  readonly redis: Part;
  /** A channel to licensing, past the way that can be cut, with every right within the tenant `tradsys`. */
  readonly admin: Transport;
  /** Starts an instance of validation among them that differs from the default so; its caller may do all that `admin` may. */
  startValidation(config: Partial<Config>): Promise<Client<typeof ValidationService>>;
  stop(): Promise<void>;
}

const logger = createLogger({ level: "silent", name: "parts" });
const MESH_KEY = randomBytes(32).toString("base64url");
const MASTER_KEY = { id: "test", key: randomBytes(32) };
/** Nothing is under way when a service is taken away. */
const STOP_WITHIN_MS = 100;

/** Starts them, and makes the tenant. */
export async function startParts(): Promise<Parts> {
  const lifecycle = createLifecycle({ logger });
  const kafka = await startBroker(lifecycle.defer);
  const redis = await startRedis();
  lifecycle.defer("Redis", () => redis.kill());
  const databases = await openDatabases(lifecycle.defer);
  const openBus = async (clientId: string): Promise<EventBus> => {
    const bus = await createKafkaBus({ connection: { brokers: kafka.brokers }, clientId, topics, logger });
    lifecycle.defer(clientId, () => bus.stop());
    return bus;
  };
  const licensing = await startLicensing(await openBus("licensing"), databases.urls("licensing"));
  lifecycle.defer("licensing", () => licensing.take());
  const meteringBus = await openBus("usage-metering");
  const metering = await startMetering(meteringBus, databases.urls("metering"));
  lifecycle.defer("usage metering", () => metering.take());
  const way = await startFaultProxy({ host: "127.0.0.1", port: licensing.port });
  lifecycle.defer("way to licensing", () => way.stop());
  const open = (port: number, credential: string): Transport => {
    const channel = createChannel({ address: `127.0.0.1:${port}`, credential });
    lifecycle.defer("channel", async () => channel.close());
    return channel;
  };
  const tenants = createClient(TenantService, open(licensing.port, licensing.operatorKey));
  const tenant = { requestId: newId(), tenantId: "tradsys", name: "TradSys" };
  const { adminApiKeySecret: key } = await tenants.createTenant(tenant);
  const toLicensing = open(way.port, MESH_KEY);
  return {
    licensing,
    wayToLicensing: { take: async () => way.cut(), giveBack: async () => way.restore() },
    metering,
    postgres: databases.postgres,
    kafka,
    redis: { take: () => redis.kill(), giveBack: () => redis.restart() },
    admin: open(licensing.port, key),
    async startValidation(config) {
      const bus = await openBus("validation");
      const sharedCache = createRedisCache({ url: redis.url, prefix: "licet:entitlements:v1:", logger });
      lifecycle.defer("shared cache", () => sharedCache.stop());
      const dependencies = { bus, licensing: toLicensing, logger, sharedCache };
      const validation = createValidation({ ...defaults, ...config }, dependencies);
      lifecycle.defer("validation", () => validation.stop());
      await validation.start();
      const server = await serve(validation.bindings, bus, toLicensing, 0);
      lifecycle.defer("port of validation", () => server.stop());
      return createClient(ValidationService, open(server.port, key));
    },
    stop: () => lifecycle.shutdown(),
  };
}

type Defer = (name: string, stop: () => Promise<void>) => void;

/** A broker with all topics. Taken away it stands still, which callers can't tell from its end, and is back at once. */
async function startBroker(defer: Defer): Promise<Part & { readonly brokers: readonly string[] }> {
  const dataDir = mkdtempSync(path.join(tmpdir(), "licet-parts-"));
  defer("Kafka's data", async () => rmSync(dataDir, { recursive: true, force: true }));
  const { brokers, pid, stop } = await startKafka({ dataDir });
  const giveBack = async (): Promise<void> => void process.kill(pid, "SIGCONT");
  defer("Kafka", async () => {
    await giveBack();
    await stop();
  });
  const admin = createKafkaAdmin(createKafkaClient({ brokers }, "parts", logger));
  await admin.ask((client) => applyTopics(client, topics));
  await admin.stop();
  return { brokers, take: async () => void process.kill(pid, "SIGSTOP"), giveBack };
}

/** The databases of licensing and usage metering behind a proxy. */
async function openDatabases(defer: Defer) {
  const licensing = await createTestDatabase({ name: "parts_licensing", migrations: licensingMigrations });
  defer("licensing's database", () => licensing.drop());
  const metering = await createTestDatabase({ name: "parts_metering", migrations: meteringMigrations });
  defer("metering's database", () => metering.drop());
  const { hostname, port } = new URL(licensing.adminUrl);
  const proxy = await startFaultProxy({ host: hostname, port: Number(port) });
  defer("way to Postgres", () => proxy.stop());
  const behindProxy = (text: string): string => {
    const url = new URL(text);
    url.port = String(proxy.port);
    return url.href;
  };
  const databases = { licensing, metering };
  return {
    postgres: { take: async () => proxy.cut(), giveBack: async () => proxy.restore() },
    urls: (name: keyof typeof databases) => ({
      appUrl: behindProxy(databases[name].url("licet_app")),
      systemUrl: behindProxy(databases[name].url("licet_system")),
    }),
  };
}

type Urls = { readonly appUrl: string; readonly systemUrl: string };

/** Licensing with a port, which stays the same when it is given back. */
async function startLicensing(bus: EventBus, database: Urls) {
  const operator = generateApiKey();
  const launch = async (port: number) => {
    const config = { database, maxConnections: 4, masterKeys: [MASTER_KEY], currentMasterKey: MASTER_KEY.id };
    const licensing = createLicensing(config, { bus, logger });
    await licensing.ensureOperatorKey(operator);
    licensing.start();
    const server = await serve(licensing.bindings, bus, undefined, port);
    const stop = async (): Promise<void> => {
      await server.stop();
      await licensing.stop();
    };
    return { port: server.port, stop };
  };
  const first = await launch(0);
  return { ...restartable(first, () => launch(first.port)), port: first.port, operatorKey: operator.key };
}

/** Usage metering, which is reached by the log alone. */
async function startMetering(bus: EventBus, database: Urls): Promise<Part> {
  const launch = async () => {
    const metering = createUsageMetering({ database, maxConnections: 4 }, { bus, logger });
    await metering.start();
    return metering;
  };
  return restartable(await launch(), launch);
}

interface Running {
  stop(): Promise<void>;
}

function restartable(first: Running, launch: () => Promise<Running>): Part {
  let running: Running | undefined = first;
  return {
    async take() {
      await running?.stop();
      running = undefined;
    },
    async giveBack() {
      running ??= await launch();
    },
  };
}

/** Serves behind the real pipeline, which asks licensing about API keys. @param licensing Undefined in licensing itself. */
async function serve(
  bindings: readonly ServiceBinding[],
  bus: EventBus,
  licensing: Transport | undefined,
  wantedPort: number,
): Promise<{ readonly port: number; stop(): Promise<void> }> {
  const pipeline = createPipeline({
    authenticate: (headers) => credentials.authenticate(headers),
    authenticateNow: (headers) => credentials.authenticateNow(headers),
    maxConcurrent: 100,
    maxStreams: 100,
    logger,
  });
  const inside = (): Transport =>
    createLocalTransport({ bindings, pipeline, headers: { authorization: `Bearer ${MESH_KEY}` } });
  const credentials = createLicensingCredentials({ licensing: licensing ?? inside(), meshKey: MESH_KEY, logger });
  const following = await followCredentials(credentials, bus, logger);
  await following.caughtUp();
  const server = createGrpcServer({ bindings, pipeline, host: "127.0.0.1", port: wantedPort, logger });
  const { port } = await server.start();
  return {
    port,
    async stop() {
      await server.stop(STOP_WITHIN_MS);
      await following.stop();
    },
  };
}

import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import type { KafkaSettings } from "@licet/mesh/kafka-settings";
import type { BusSettings } from "@licet/mesh/settings";
import { createLifecycle, type Lifecycle } from "@licet/platform/lifecycle";
import { createLogger, type Logger } from "@licet/platform/logging";
import { takeDataDir } from "@licet/standalone/data-dir";
import { openDatabaseServer } from "@licet/standalone/databases";
import { writePrivateJson } from "@licet/standalone/files";
import { loadSecrets } from "@licet/standalone/secrets";
import { createTopics } from "../commands/topics.ts";
import type { Arguments } from "./arguments.ts";
import { formerReplicasEnded } from "./former.ts";
import { loadMesh } from "./load.ts";
import { planReplicas } from "./ports.ts";
import { type Replica, startReplica } from "./replica.ts";
import { type MeshInfo, readFormer } from "./report.ts";
import { checkKafka, openKafka, openRedis } from "./servers.ts";
import { addressOf, environmentOf, type Shared, serviceNames } from "./services.ts";

/** What the environment says about the mesh itself. */
export interface MeshSettings {
  /** Administrator's URL; undefined: an embedded Postgres. */
  readonly databaseUrl: string | undefined;
  readonly databasePrefix: string;
  /** How a given Kafka is reached; without brokers one is started. */
  readonly kafka: KafkaSettings;
  /** A given Redis; undefined: one is started. */
  readonly redisUrl: string | undefined;
  /** Tells the user something while it starts. */
  notify(sentence: string): void;
}

/** All services as processes of their own. */
export interface Mesh {
  /** Starts it all and resolves when every replica serves. @throws Error in one sentence about what is in the way. */
  start(): Promise<{ info: MeshInfo; path: string }>;
  /** Ends it all; the replicas at the same time, each in less than 15 s. */
  stop(): Promise<void>;
  /** Resolves with the reason when something it can't do without has ended for good. */
  readonly failed: Promise<Error>;
}

/** An embedded server has to hold the connections of all replicas. */
const SERVER_SETTINGS = { max_connections: "300" };

/** Creates a mesh on this host; nothing happens before `start`. */
export function createMesh(args: Arguments, settings: MeshSettings): Mesh {
  const logger = createLogger({ level: "warn", name: "licet-mesh" });
  const lifecycle = createLifecycle({ logger });
  const failed = Promise.withResolvers<Error>();
  const ending = new AbortController();
  return {
    failed: failed.promise,
    start: () => start({ args, settings, logger, lifecycle, signal: ending.signal, fail: failed.resolve }),
    async stop() {
      ending.abort(new Error("stopped during the start"));
      await lifecycle.shutdown();
    },
  };
}

interface Parts {
  readonly args: Arguments;
  readonly settings: MeshSettings;
  readonly logger: Logger;
  readonly lifecycle: Lifecycle;
  readonly signal: AbortSignal;
  readonly fail: (error: Error) => void;
}

async function start(parts: Parts): Promise<{ info: MeshInfo; path: string }> {
  const { args, settings, logger, lifecycle, signal, fail } = parts;
  if (args.events === "kafka") checkKafka(settings.kafka);
  const dataDir = await takeDataDir(args.ephemeral ? undefined : join(args.dataDir, folderOf(parts)), args.ephemeral);
  lifecycle.defer("data folder", () => dataDir.release());
  const path = args.ephemeral ? join(dataDir.path, "mesh.json") : resolve(args.dataDir, "mesh.json");
  await formerReplicasEnded(path);
  const plans = await planReplicas(args.replicas, args.freePorts);
  const secrets = await loadSecrets(dataDir.path);
  const databases = await openDatabaseServer({
    ...settings,
    dataDir: dataDir.path,
    ephemeral: args.ephemeral,
    settings: SERVER_SETTINGS,
    logger,
    onEmbedded(server) {
      lifecycle.defer("Postgres", () => server.stop());
      void server.failed.then(fail);
    },
  });
  signal.throwIfAborted();
  const servers = { ...parts, dataDir: dataDir.path, freePorts: args.freePorts, notify: settings.notify };
  const place = { DATABASE_URL: undefined, LICET_DATABASE_PREFIX: settings.databasePrefix };
  const bus: BusSettings =
    args.events === "kafka"
      ? { ...place, ...(await openKafka(settings.kafka, servers)) }
      : { ...place, EVENT_LOG_URL: databases.url("bus", "licet_system") };
  if (args.events === "kafka") await createTopics(bus);
  signal.throwIfAborted();
  const redisUrl = await openRedis(settings.redisUrl, servers);
  const meshKey = randomBytes(32).toString("base64url");
  const shared: Shared = { databases, secrets, plans, bus, redisUrl, meshKey };
  const { apiKeys: known } = await readFormer(path);
  const apiKeys = await loadMesh({ shared, seed: args.seed, acceptLog: args.acceptLog, known, logger, signal });
  signal.throwIfAborted();

  const describe = (replicas: readonly Replica[]): MeshInfo => ({
    pid: process.pid,
    addresses: Object.fromEntries(serviceNames.map((name) => [name, addressOf(name, plans)])),
    replicas: replicas.flatMap((replica) => {
      const ready = replica.ready();
      return ready ? [{ ...ready, number: replica.plan.number }] : [];
    }),
    databaseUrl: databases.adminUrl,
    kafkaBrokers: bus.KAFKA_BROKERS,
    redisUrl,
    apiKeys,
  });
  const replicas = await startAll(parts, shared, (running) => writePrivateJson(path, describe(running)));
  return { info: describe(replicas), path };
}

/** What is in the data folder belongs to one event log and must not be continued with another one. */
function folderOf({ args, settings }: Parts): string {
  if (args.events === "postgres") return "mesh";
  return settings.kafka.KAFKA_BROKERS === undefined ? "mesh-kafka" : "mesh-given-kafka";
}

/** Starts all replicas and resolves when each serves. `write` is told whenever all serve, one write after the other. */
async function startAll(
  { logger, lifecycle, fail }: Parts,
  shared: Shared,
  write: (replicas: readonly Replica[]) => Promise<void>,
): Promise<readonly Replica[]> {
  const replicas: Replica[] = [];
  const all = Promise.withResolvers<void>();
  let writing: Promise<void> = Promise.resolve();
  const onReady = (): void => {
    if (replicas.some((replica) => replica.ready() === undefined)) return;
    writing = writing.then(() => write(replicas)).then(all.resolve, all.reject);
  };
  const onFailed = (error: Error): void => {
    fail(error);
    all.reject(error);
  };
  lifecycle.defer("replicas", async () => {
    await Promise.all(replicas.map((replica) => replica.stop()));
    await writing;
  });
  for (const plan of shared.plans) {
    replicas.push(startReplica({ plan, env: environmentOf(plan, shared), logger, onReady, onFailed }));
  }
  await all.promise;
  return replicas;
}

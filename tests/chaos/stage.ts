import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { createTopics } from "@licet/cli/commands/topics";
import { loadMesh } from "@licet/cli/mesh/load";
import { environmentOf, type Plan, type Shared, serviceNames } from "@licet/cli/mesh/services";
import type { EmbeddedPostgres } from "@licet/platform/database/embedded";
import { asAdministrator } from "@licet/platform/database/roles";
import { findFreePorts } from "@licet/platform/free-ports";
import type { Lifecycle } from "@licet/platform/lifecycle";
import type { Logger } from "@licet/platform/logging";
import { type FaultProxy, startFaultProxy } from "@licet/platform/testing/proxy";
import { startRedis, type TestRedis } from "@licet/platform/testing/redis-server";
import { until } from "@licet/platform/testing/until";
import { type DatabaseServer, openDatabaseServer } from "@licet/standalone/databases";
import { loadSecrets } from "@licet/standalone/secrets";
import { type Cluster, startCluster } from "./cluster.ts";
import { startGuard } from "./guard.ts";
import type { PlantedBug } from "./planted.ts";
import { type ChaosReplica, startChaosReplica } from "./replica.ts";

const PREFIX = "licet";
/** All replicas must serve so long after their start, in milliseconds. */
const READY_WITHIN_MS = 300_000;
/** Few enough that a probe can take all slots of a replica, many more than the load needs. */
export const MAX_CONCURRENT = 64;

/** Everything that a run breaks: the servers, the replicas, and the links between them. */
export interface Stage {
  readonly replicas: readonly ChaosReplica[];
  /** Undefined where the events go through Postgres. */
  readonly cluster: Cluster | undefined;
  readonly postgres: EmbeddedPostgres;
  readonly databases: DatabaseServer;
  readonly redis: TestRedis;
  /** By name, such as `validation-1>kafka` or `clients>billing-2`; a link to Kafka has a proxy for each broker. */
  readonly links: ReadonlyMap<string, readonly FaultProxy[]>;
  /** Where clients reach a replica: through its proxy. */
  address(replica: ChaosReplica): string;
  readonly operatorKey: string;
}

/** What {@link openStage} needs. */
export interface StageOptions {
  /** Replicas of each service. */
  readonly replicas: number;
  readonly folder: string;
  /** What usage metering does while the log is down. */
  readonly whenBusDown: "refuse" | "spool";
  readonly planted: { readonly name: string; readonly bug: PlantedBug } | undefined;
  readonly lifecycle: Lifecycle;
  readonly logger: Logger;
}

/** Starts everything and resolves when all replicas serve. What was started is closed by the lifecycle, whatever happens. */
export async function openStage(options: StageOptions): Promise<Stage> {
  const { folder, planted, lifecycle, logger } = options;
  const plans = await planReplicas(options.replicas);
  const names = plans.map(nameOf);
  const wantsKafka = planted?.bug.log !== "postgres";
  const [cluster, databases, redis] = await Promise.all([
    wantsKafka ? startCluster(folder, names) : undefined,
    openPostgres(options),
    startRedis(),
  ]);
  lifecycle.defer("Redis", async () => {
    redis.thaw();
    await redis.kill();
  });
  const { embedded } = databases;
  if (embedded === undefined) throw new Error("the run needs a Postgres of its own");
  const guard = startGuard(folder, () => [embedded.pid]);
  lifecycle.defer("guard", async () => guard.stop());
  if (cluster !== undefined) lifecycle.defer("Kafka", () => cluster.stop());
  const bus = {
    KAFKA_BROKERS: cluster?.direct,
    EVENT_LOG_URL: cluster ? undefined : databases.url("bus", "licet_system"),
    DATABASE_URL: undefined,
    LICET_DATABASE_PREFIX: PREFIX,
  };
  if (cluster !== undefined) {
    await retry(() => createTopics(bus));
  }
  const secrets = await loadSecrets(folder);
  const meshKey = randomBytes(32).toString("base64url");
  const shared: Shared = { databases, secrets, plans, bus, redisUrl: redis.url, meshKey };
  const signal = new AbortController().signal;
  const keys = await retry(() => loadMesh({ shared, seed: false, acceptLog: false, known: {}, logger, signal }));
  await alter(databases, planted?.bug);

  const network = createNetwork(lifecycle);
  const replicas: ChaosReplica[] = [];
  lifecycle.defer("replicas", async () => void (await Promise.all(replicas.map((replica) => replica.stop()))));
  for (const plan of plans) {
    const env = await linkedEnvironment({ plan, shared, cluster, redis, network, whenBusDown: options.whenBusDown });
    await network.open(`clients>${nameOf(plan)}`, plan.ports.grpc);
    replicas.push(startChaosReplica({ plan, env, planted: planted?.name, folder }));
  }
  await until("all replicas serve", () => replicas.every((one) => one.ready() !== undefined), {
    timeoutMs: READY_WITHIN_MS,
  });
  return {
    replicas,
    cluster,
    postgres: embedded,
    databases,
    redis,
    links: network.links,
    address: ({ name }) => `127.0.0.1:${network.links.get(`clients>${name}`)?.[0]?.port}`,
    operatorKey: keys.platform?.operator ?? "",
  };
}

function nameOf({ service, number }: Plan): string {
  return `${service}-${number}`;
}

async function planReplicas(count: number): Promise<Plan[]> {
  const wanted = serviceNames.flatMap((service) =>
    Array.from({ length: count }, (_, index) => ({ service, number: index + 1 })),
  );
  const free = await findFreePorts(3 * wanted.length);
  return wanted.map((replica, index) => {
    const [grpc = 0, web = 0, metrics = 0] = free.slice(3 * index);
    return { ...replica, ports: { grpc, web, metrics } };
  });
}

function openPostgres({ folder, lifecycle, logger }: StageOptions): Promise<DatabaseServer> {
  return openDatabaseServer({
    databaseUrl: undefined,
    dataDir: folder,
    ephemeral: true,
    settings: { max_connections: "250" },
    databasePrefix: PREFIX,
    logger,
    onEmbedded: (server) => lifecycle.defer("Postgres", () => server.stop()),
  });
}

/** A cluster that has just been started answers only after some tries. */
async function retry<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt === 30) throw error;
      await delay(1_000);
    }
  }
}

async function alter({ adminUrl }: DatabaseServer, bug: PlantedBug | undefined): Promise<void> {
  if (bug?.sql === undefined) return;
  const { database, text } = bug.sql;
  const url = new URL(adminUrl);
  url.pathname = `/${PREFIX}_${database}`;
  await asAdministrator(url.href, (client) => client.query(text));
}

interface Network {
  readonly links: Map<string, readonly FaultProxy[]>;
  /** Opens a link to a port of this machine and returns the port that stands for it. */
  open(name: string, port: number): Promise<number>;
}

function createNetwork(lifecycle: Lifecycle): Network {
  const links = new Map<string, readonly FaultProxy[]>();
  lifecycle.defer("links", async () => {
    await Promise.all([...links.values()].flat().map((proxy) => proxy.stop()));
  });
  return {
    links,
    async open(name, port) {
      const proxy = await startFaultProxy({ host: "127.0.0.1", port });
      links.set(name, [...(links.get(name) ?? []), proxy]);
      return proxy.port;
    },
  };
}

/** The settings of a replica, in which every address is that of a proxy of its own. */
async function linkedEnvironment(options: {
  plan: Plan;
  shared: Shared;
  cluster: Cluster | undefined;
  redis: TestRedis;
  network: Network;
  whenBusDown: string;
}): Promise<Record<string, string>> {
  const { plan, shared, cluster, redis, network, whenBusDown } = options;
  const name = nameOf(plan);
  const postgresPort = await network.open(`${name}>postgres`, Number(new URL(shared.databases.adminUrl).port));
  const databases: DatabaseServer = {
    ...shared.databases,
    url(database, role) {
      const url = new URL(shared.databases.url(database, role));
      url.port = String(postgresPort);
      return url.href;
    },
  };
  const through = async (service: Plan): Promise<Plan> => {
    if (service.service === plan.service) return service;
    const grpc = await network.open(`${name}>${service.service}`, service.ports.grpc);
    return { ...service, ports: { ...service.ports, grpc } };
  };
  const called: readonly string[] = plan.service === "billing" ? ["licensing", "usage-metering"] : ["licensing"];
  const plans = await Promise.all(
    shared.plans.map((other) => (called.includes(other.service) ? through(other) : other)),
  );
  const kafka = cluster?.through(name);
  if (kafka !== undefined) network.links.set(`${name}>kafka`, kafka.proxies);
  const bus = {
    ...shared.bus,
    KAFKA_BROKERS: kafka?.addresses,
    EVENT_LOG_URL: kafka ? undefined : databases.url("bus", "licet_system"),
  };
  const redisUrl =
    plan.service === "validation"
      ? `redis://127.0.0.1:${await network.open(`${name}>redis`, Number(new URL(redis.url).port))}`
      : undefined;
  return {
    ...environmentOf(plan, { ...shared, databases, plans, bus, redisUrl }),
    MAX_CONCURRENT: String(MAX_CONCURRENT),
    ...(plan.service === "usage-metering" && { USAGE_WHEN_BUS_DOWN: whenBusDown }),
  };
}

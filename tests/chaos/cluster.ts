import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { findFreePorts } from "@licet/platform/free-ports";
import { type GuardedProgram, runGuarded, startGuarded } from "@licet/platform/local/guarded";
import { kafkaCommand } from "@licet/platform/local/kafka";
import { fetchKafka } from "@licet/platform/local/kafka-release";
import { type FaultProxy, startFaultProxy } from "@licet/platform/testing/proxy";

const BROKERS = 3;
/** Enough for the few megabytes that a run has in flight. */
const HEAP_MB = 192;
const FORMAT_HEAP_MB = 128;
/** A broker that has not ended so long after SIGTERM, in milliseconds, is killed. */
const STOP_WITHIN_MS = 20_000;

/** One broker; it keeps its data and ports through restarts. */
export interface ClusterBroker {
  /** From 1. */
  readonly number: number;
  /** Sends a signal to its process, which runs. */
  signal(signal: NodeJS.Signals): void;
  /** Starts it again once it has ended; it need not serve yet. */
  start(): Promise<void>;
}

/** Three Kafka brokers that are controllers as well: replication 3, at least 2 in sync. */
export interface Cluster {
  readonly brokers: readonly ClusterBroker[];
  /** Addresses past all proxies, as the brokers use them among themselves. */
  readonly direct: readonly string[];
  /** The addresses that a client's name stands for, and the proxies behind them, one for each broker; the caller stops them. */
  through(client: string): { readonly addresses: readonly string[]; readonly proxies: readonly FaultProxy[] };
  stop(): Promise<void>;
}

/**
 * Starts the brokers on the loopback interface. Each client gets a listener of its own in each broker, as Kafka tells
 * clients the address that belongs to the listener they came by: so each link can be cut alone. Brokers and controllers
 * reach each other directly.
 */
export async function startCluster(folder: string, clients: readonly string[]): Promise<Cluster> {
  await fetchKafka(undefined);
  const links = new Map<string, FaultProxy[]>(clients.map((client) => [client, []]));
  const controllers = await findFreePorts(BROKERS);
  // 16 bytes in base64url; one that begins with a dash would be taken for an option.
  const clusterId = `L${randomBytes(16).toString("base64url").slice(1)}`;
  const settings: string[] = [];
  const direct: string[] = [];
  for (const [index, controller] of controllers.entries()) {
    const [own = 0, ...ports] = await findFreePorts(1 + clients.length);
    const listeners = [{ name: "DIRECT", port: own, advertised: own }];
    for (const [place, client] of clients.entries()) {
      const port = ports[place] ?? 0;
      const proxy = await startFaultProxy({ host: "127.0.0.1", port });
      links.get(client)?.push(proxy);
      listeners.push({ name: `CLIENT${place}`, port, advertised: proxy.port });
    }
    const home = path.join(folder, `broker-${index + 1}`);
    const file = path.join(home, "server.properties");
    await mkdir(home, { recursive: true });
    await writeFile(file, brokerProperties({ id: index + 1, home, listeners, controller, controllers }));
    settings.push(file);
    direct.push(`127.0.0.1:${own}`);
  }
  const launch = (file: string): Promise<GuardedProgram> => startGuarded(kafkaCommand("kafka.Kafka", [file], HEAP_MB));
  await Promise.all(
    settings.map((file) =>
      runGuarded(kafkaCommand("kafka.tools.StorageTool", ["format", "-t", clusterId, "-c", file], FORMAT_HEAP_MB), {}),
    ),
  );
  const programs = await Promise.all(settings.map(launch));
  return {
    direct,
    brokers: settings.map((file, index) => ({
      number: index + 1,
      signal(signal) {
        process.kill(programs[index]?.pid ?? 0, signal);
      },
      async start() {
        await programs[index]?.stop(STOP_WITHIN_MS);
        programs[index] = await launch(file);
      },
    })),
    through(client) {
      const proxies = links.get(client) ?? [];
      return { proxies, addresses: proxies.map(({ port }) => `127.0.0.1:${port}`) };
    },
    async stop() {
      // What they hold is not needed any more.
      await Promise.all(programs.map((program) => program.stop(0)));
    },
  };
}

interface BrokerPlan {
  readonly id: number;
  readonly home: string;
  readonly listeners: readonly { name: string; port: number; advertised: number }[];
  readonly controller: number;
  readonly controllers: readonly number[];
}

function brokerProperties({ id, home, listeners, controller, controllers }: BrokerPlan): string {
  const all = [...listeners, { name: "CONTROLLER", port: controller }];
  return Object.entries({
    "process.roles": "broker,controller",
    "node.id": id,
    "controller.quorum.voters": controllers.map((port, index) => `${index + 1}@127.0.0.1:${port}`).join(","),
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "DIRECT",
    listeners: all.map(({ name, port }) => `${name}://127.0.0.1:${port}`).join(","),
    "advertised.listeners": listeners.map(({ name, advertised }) => `${name}://127.0.0.1:${advertised}`).join(","),
    "listener.security.protocol.map": all.map(({ name }) => `${name}:PLAINTEXT`).join(","),
    "log.dirs": path.join(home, "log"),
    "auto.create.topics.enable": false,
    "default.replication.factor": BROKERS,
    "min.insync.replicas": BROKERS - 1,
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": BROKERS,
    "transaction.state.log.replication.factor": BROKERS,
    "transaction.state.log.min.isr": BROKERS - 1,
    "group.initial.rebalance.delay.ms": 0,
    // A broker that stands still holds up every publication until it counts as gone.
    "broker.session.timeout.ms": 6_000,
    "broker.heartbeat.interval.ms": 1_000,
    "replica.lag.time.max.ms": 10_000,
    // Of each listener.
    "num.network.threads": 1,
    "num.io.threads": 2,
    "background.threads": 2,
    "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
  })
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}

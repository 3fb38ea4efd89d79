import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Kafka, logLevel } from "kafkajs";
import { becomesPortFree, findFreePorts } from "../free-ports.ts";
import { killProcesses } from "../processes.ts";
import { type GuardedProgram, runGuarded, startGuarded } from "./guarded.ts";
import { fetchKafka, hasKafka, kafkaLibraries } from "./kafka-release.ts";

const START_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 20_000;
/** How long the port of a broker that was killed may still be taken. */
const FREE_WITHIN_MS = 5_000;

/** A running Kafka. */
export interface KafkaServer {
  /** Its addresses, as `host:port`. */
  readonly brokers: readonly string[];
  /** Process id of the broker. */
  readonly pid: number;
  /** Resolves with its last output when it has ended by itself. */
  readonly failed: Promise<Error>;
  /** Ends the broker; data in a folder of its own is removed. */
  stop(): Promise<void>;
}

/** What {@link startKafka} can be told. */
export interface KafkaOptions {
  /** Folder of the data, kept by `stop`; the caller alone uses it. Absent: a temporary one. */
  readonly dataDir?: string;
  /** TCP port on 127.0.0.1; absent: a free one. */
  readonly port?: number;
  /** Listeners beside the one in clear text, such as `SSL://localhost:9093`. */
  readonly listeners?: readonly string[];
  /** Entries of server.properties beside the small ones that it has. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Users that new data begins with, as `SCRAM-SHA-256=[name=alice,password=secret]`. */
  readonly users?: readonly string[];
  /** Called when Kafka is not here yet and will be fetched, which takes a while. */
  readonly onFetch?: () => void;
  /** Aborts when the broker is not wanted any more; once it serves, `stop` ends it. */
  readonly signal?: AbortSignal;
}

/**
 * Starts one Apache Kafka broker (KRaft, no ZooKeeper) on the loopback interface with small settings, on new or existing
 * data, fetching it by Maven the first time. It ends with this process, in whatever way this process ends; should one
 * have been left behind on the data all the same, it is ended first.
 *
 * @throws Error with Kafka's last output when it doesn't serve in time.
 */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaServer> {
  const { signal } = options;
  if (!hasKafka()) options.onFetch?.();
  await fetchKafka(signal);
  const dataDir = options.dataDir ?? (await mkdtemp(path.join(tmpdir(), "licet-kafka-")));
  const remove = async (): Promise<void> => {
    if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true });
  };
  try {
    const settings = path.resolve(dataDir, "server.properties");
    await mkdir(dataDir, { recursive: true });
    await killProcesses((command) => command.endsWith(`kafka.Kafka ${settings}`));
    const [free = 0, controller = 0] = await findFreePorts(2);
    const port = options.port ?? free;
    // Another Kafka there would be taken for this one.
    if (!(await becomesPortFree(port, FREE_WITHIN_MS))) {
      throw new Error(`Kafka can't have port ${port}: another program listens on it`);
    }
    const logDir = path.resolve(dataDir, "log");
    await writeFile(settings, serverProperties(logDir, port, controller, options));
    if (!existsSync(path.join(logDir, "meta.properties"))) await format(settings, options);
    const broker = await launch(settings, `127.0.0.1:${port}`, signal);
    let stopping = false;
    return {
      brokers: [`127.0.0.1:${port}`],
      pid: broker.pid,
      failed: new Promise((resolve) => {
        void broker.ended.then(() => {
          if (!stopping) resolve(new Error(`Kafka has ended by itself:\n${broker.output.join("\n")}`));
        });
      }),
      async stop() {
        stopping = true;
        await broker.stop(STOP_TIMEOUT_MS);
        await remove();
      },
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** One node is broker and controller. Replication 1 is all that one broker can do; everything else is as in production. */
function serverProperties(logDir: string, port: number, controllerPort: number, options: KafkaOptions): string {
  const listeners = [`PLAINTEXT://127.0.0.1:${port}`, ...(options.listeners ?? [])];
  return Object.entries({
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.quorum.voters": `1@127.0.0.1:${controllerPort}`,
    "controller.listener.names": "CONTROLLER",
    listeners: [...listeners, `CONTROLLER://127.0.0.1:${controllerPort}`].join(","),
    "advertised.listeners": listeners.join(","),
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL",
    "log.dirs": logDir,
    // A start on existing data waits until the session of the broker before it has ended, 9 s by Kafka's own settings.
    "broker.session.timeout.ms": 3_000,
    "broker.heartbeat.interval.ms": 500,
    "auto.create.topics.enable": false,
    "group.initial.rebalance.delay.ms": 0,
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "num.network.threads": 2,
    "num.io.threads": 2,
    "background.threads": 2,
    "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
    ...options.settings,
  })
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}

/** The command that runs one of Kafka's programs with a heap of so many MiB; {@link fetchKafka} has fetched it. */
export function kafkaCommand(main: string, args: readonly string[], heapMb: number): string[] {
  // A short life on few cores: the quick compiler and the simple collector.
  const flags = [`-Xmx${heapMb}m`, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
  const logging = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
  return ["java", ...flags, logging, "-cp", `${kafkaLibraries}/*`, main, ...args];
}

async function format(settings: string, { users = [], signal }: KafkaOptions): Promise<void> {
  // A cluster id is 16 bytes in base64url; one that begins with a dash would be taken for an option.
  const id = `L${randomBytes(16).toString("base64url").slice(1)}`;
  const args = ["format", "-t", id, "-c", settings, ...users.flatMap((user) => ["--add-scram", user])];
  await runGuarded(kafkaCommand("kafka.tools.StorageTool", args, 128), { signal }).catch((cause: unknown) => {
    signal?.throwIfAborted();
    throw new Error(`Kafka can't format its storage: ${(cause as Error).message}`, { cause });
  });
}

/** Starts the broker and resolves when it serves. */
async function launch(settings: string, address: string, signal: AbortSignal | undefined): Promise<GuardedProgram> {
  signal?.throwIfAborted();
  const broker = await startGuarded(kafkaCommand("kafka.Kafka", [settings], 256));
  let ended = false;
  void broker.ended.then(() => {
    ended = true;
  });
  for (const giveUpAt = performance.now() + START_TIMEOUT_MS; !(await answers(address)); await delay(50)) {
    if (!ended && !signal?.aborted && performance.now() < giveUpAt) continue;
    await broker.stop(0);
    signal?.throwIfAborted();
    throw new Error(`Kafka does not serve at ${address}:\n${broker.output.join("\n")}`);
  }
  return broker;
}

async function answers(address: string): Promise<boolean> {
  const kafka = new Kafka({ brokers: [address], logLevel: logLevel.NOTHING, retry: { retries: 0 } });
  const admin = kafka.admin();
  try {
    await admin.connect();
    if ((await admin.describeCluster()).brokers.length === 0) return false;
    // The first question about a group makes the topic of all groups, the second one fails until that is loaded.
    await admin.fetchOffsets({ groupId: "licet-start" });
    await admin.listGroups();
    return true;
  } catch {
    return false;
  } finally {
    await admin.disconnect();
  }
}

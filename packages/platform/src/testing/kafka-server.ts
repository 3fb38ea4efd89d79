import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { Kafka, logLevel } from "kafkajs";
import { findFreePort } from "../free-ports.ts";
import { until } from "./until.ts";

/** The release that Maven resolves. kafkajs needs 3.9 or at least 4.0.1, which take its old JoinGroup requests again. */
const kafkaVersion = "4.0.1";
const cache = path.resolve(import.meta.dirname, `../../../../node_modules/.cache/kafka/${kafkaVersion}`);
const lib = path.join(cache, "lib");

const startTimeoutMs = 120_000;
const stopTimeoutMs = 20_000;
/** Lines of Kafka's output that are kept for the message of a failed start. */
const keptLines = 30;

/** A running Kafka, or the one that KAFKA_BROKERS names. */
export interface KafkaServer {
  /** Its addresses, as `host:port`. */
  readonly brokers: readonly string[];
  /** Process id of the broker; undefined for a given one. */
  readonly pid: number | undefined;
  /** Ends the broker; data in a folder of its own is removed. A given one is left alone. */
  stop(): Promise<void>;
}

export interface KafkaServerOptions {
  /** Folder of the data, kept by `stop`; absent: a temporary one. */
  readonly dataDir?: string;
  /** TCP port on 127.0.0.1; absent: a free one. A broker that is started again on its data needs its old port. */
  readonly port?: number;
  /** Largest heap of the broker, in MiB. */
  readonly heapMb?: number;
}

/** Why Kafka can't be started here, or undefined when it can. */
export function whyNoKafka(): string | undefined {
  if (process.env.KAFKA_BROKERS !== undefined) return undefined;
  const java = spawnSync("java", ["-version"], { encoding: "utf8" });
  const version = Number(/version "(\d+)/.exec(java.stderr ?? "")?.[1]);
  if (!(version >= 17)) return "KAFKA_BROKERS is not set and there is no Java 17 or newer to run Kafka with";
  if (existsSync(lib) || spawnSync("mvn", ["-v"]).status === 0) return undefined;
  return "KAFKA_BROKERS is not set and there is no Maven (mvn) to fetch Kafka with";
}

/**
 * Starts one Apache Kafka broker (KRaft, no ZooKeeper) on the loopback interface with small settings, resolving it by
 * Maven the first time; or takes the one that KAFKA_BROKERS names, a list of `host:port` divided by commas. The broker
 * ends with this process, in whatever way this process ends.
 *
 * @throws {Error} with Kafka's last output when it doesn't serve in time.
 */
export async function startKafka(options: KafkaServerOptions = {}): Promise<KafkaServer> {
  const given = process.env.KAFKA_BROKERS;
  if (given !== undefined) return { brokers: given.split(","), pid: undefined, stop: async () => undefined };
  await resolveKafka();
  const dataDir = options.dataDir ?? (await mkdtemp(path.join(tmpdir(), "licet-kafka-")));
  const port = options.port ?? (await findFreePort());
  const settings = path.join(dataDir, "server.properties");
  await mkdir(dataDir, { recursive: true });
  await writeFile(settings, serverProperties(path.join(dataDir, "log"), port, await findFreePort()));
  if (!existsSync(path.join(dataDir, "log", "meta.properties"))) format(settings);
  const broker = launch(settings, options.heapMb ?? 256);
  const address = `127.0.0.1:${port}`;
  const stop = async (): Promise<void> => {
    await end(broker);
    if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true });
  };
  try {
    await serving(address, broker);
  } catch (error) {
    await stop();
    throw new Error(`Kafka does not serve at ${address}:\n${broker.output.join("\n")}`, { cause: error });
  }
  return { brokers: [address], pid: await broker.pid, stop };
}

/** Fetches Kafka and what it needs at run time into the cache, unless it is there. */
async function resolveKafka(): Promise<void> {
  if (existsSync(lib)) return;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(path.join(cache, "resolving-"));
  try {
    await writeFile(path.join(work, "pom.xml"), pom);
    const goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
    const args = ["-q", "-B", goal, "-DincludeScope=runtime", `-DoutputDirectory=${path.join(work, "lib")}`];
    const maven = spawn("mvn", args, { cwd: work, stdio: ["ignore", "pipe", "pipe"] });
    const output = lastLines(maven);
    const [code] = await once(maven, "close");
    if (code !== 0) throw new Error(`Maven can't resolve Kafka ${kafkaVersion}:\n${output.join("\n")}`);
    // Another process may have been faster; what it fetched is the same.
    await rename(path.join(work, "lib"), lib).catch((error: unknown) => {
      if (!existsSync(lib)) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.licet</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>${kafkaVersion}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
`;

/** One node is broker and controller. Replication 1 is all that one broker can do; everything else is as in production. */
function serverProperties(logDir: string, port: number, controllerPort: number): string {
  return Object.entries({
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.quorum.voters": `1@127.0.0.1:${controllerPort}`,
    "controller.listener.names": "CONTROLLER",
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    "log.dirs": logDir,
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
  })
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}

function java(main: string, args: readonly string[], heapMb: number): string[] {
  // A short life on few cores: the quick compiler and the simple collector.
  const flags = [`-Xmx${heapMb}m`, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
  return ["java", ...flags, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", `${lib}/*`, main, ...args];
}

function format(settings: string): void {
  // A cluster id is 16 bytes in base64url; one that begins with a dash would be taken for an option.
  const id = `L${Buffer.from(crypto.getRandomValues(new Uint8Array(16)))
    .toString("base64url")
    .slice(1)}`;
  const [command = "", ...args] = java("kafka.tools.StorageTool", ["format", "-t", id, "-c", settings], 128);
  const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`Kafka can't format its storage: ${stderr}`);
}

interface Broker {
  readonly process: ChildProcess;
  readonly pid: Promise<number>;
  readonly output: string[];
}

function launch(settings: string, heapMb: number): Broker {
  // The guard's input ends when this process ends, in whatever way; then it ends the broker.
  const guard = `exec 3<&0
    "$@" </dev/null & broker=$!
    echo "pid $broker"
    { read -r _ <&3; kill -9 $broker; } & guard=$!
    wait $broker; code=$?
    kill $guard; exit $code`;
  const child = spawn("sh", ["-c", guard, "sh", ...java("kafka.Kafka", [settings], heapMb)], {
    // A group of its own: Ctrl-C reaches whoever uses the broker first, and the broker by `stop`.
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const pid = new Promise<number>((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const found = /^pid (\d+)$/.exec(line)?.[1];
      if (found !== undefined) resolve(Number(found));
    });
  });
  return { process: child, pid, output: lastLines(child) };
}

function lastLines(child: ChildProcess): string[] {
  const lines: string[] = [];
  for (const input of [child.stdout, child.stderr]) {
    if (input === null) continue;
    createInterface({ input }).on("line", (line) => {
      lines.push(line);
      if (lines.length > keptLines) lines.shift();
    });
  }
  return lines;
}

async function serving(address: string, broker: Broker): Promise<void> {
  const kafka = new Kafka({ brokers: [address], logLevel: logLevel.NOTHING, retry: { retries: 0 } });
  const answers = async (): Promise<boolean> => {
    if (broker.process.exitCode !== null) throw new Error("the broker has ended");
    const admin = kafka.admin();
    try {
      await admin.connect();
      return (await admin.describeCluster()).brokers.length > 0;
    } catch {
      return false;
    } finally {
      await admin.disconnect();
    }
  };
  await until("Kafka answers", answers, { timeoutMs: startTimeoutMs });
}

async function end(broker: Broker): Promise<void> {
  const { process: shell } = broker;
  if (shell.exitCode !== null || shell.signalCode !== null || shell.pid === undefined) return;
  const group = -shell.pid;
  const ended = once(shell, "exit");
  process.kill(await broker.pid, "SIGTERM");
  const forced = setTimeout(() => process.kill(group, "SIGKILL"), stopTimeoutMs);
  await ended;
  clearTimeout(forced);
}

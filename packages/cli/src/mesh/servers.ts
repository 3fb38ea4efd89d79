import { join } from "node:path";
import type { KafkaSettings } from "@licet/mesh/kafka-settings";
import type { Lifecycle } from "@licet/platform/lifecycle";
import { startKafka } from "@licet/platform/local/kafka";
import { kafkaVersion, whyNoKafka } from "@licet/platform/local/kafka-release";
import { startRedis, whyNoRedis } from "@licet/platform/local/redis";
import type { Logger } from "@licet/platform/logging";
import { checkPorts } from "@licet/standalone/ports";

/** Their usual ports: those of programs that are there anyway are left to these. */
const PORTS = { kafka: 9192, redis: 6479 };

/** What starting a server of the mesh's own needs. */
export interface ServerOptions {
  /** The data folder, which this process holds. */
  readonly dataDir: string;
  readonly freePorts: boolean;
  readonly lifecycle: Lifecycle;
  readonly logger: Logger;
  /** Aborts when the mesh is to be given up. */
  readonly signal: AbortSignal;
  /** Tells the user something. */
  notify(sentence: string): void;
  /** Called when a server that the mesh can't do without has ended by itself. */
  fail(error: Error): void;
}

/** Finds out at once whether there is a Kafka, or something to run one with. @throws Error in one sentence. */
export function checkKafka(given: KafkaSettings): void {
  const missing = given.KAFKA_BROKERS === undefined ? whyNoKafka() : undefined;
  if (missing === undefined) return;
  throw new Error(
    `Kafka can't be started: ${missing}; install that, name a Kafka by KAFKA_BROKERS, or use --events postgres`,
  );
}

/**
 * Opens the Kafka that carries the events: the given one, or one of the mesh's own, on the data that it left.
 *
 * @throws Error in one sentence when its port is taken.
 */
export async function openKafka(given: KafkaSettings, options: ServerOptions): Promise<KafkaSettings> {
  if (given.KAFKA_BROKERS !== undefined) return given;
  const { dataDir, lifecycle, signal, notify } = options;
  const server = startKafka({
    dataDir: join(dataDir, "kafka"),
    ...portOf("kafka", options),
    onFetch: () => notify(`fetching Apache Kafka ${kafkaVersion} by Maven, this once; it may take a minute or two`),
    signal,
  });
  // Before it runs: a start that is given up ends it too.
  lifecycle.defer("Kafka", () =>
    server.then(
      (running) => running.stop(),
      () => undefined,
    ),
  );
  const { brokers, failed } = await explained(server, PORTS.kafka);
  void failed.then(options.fail);
  return { KAFKA_BROKERS: brokers };
}

/** Opens the cache that the replicas share: the given Redis, one of the mesh's own, or none where there is no Redis. */
export async function openRedis(given: string | undefined, options: ServerOptions): Promise<string | undefined> {
  if (given !== undefined) return given;
  const { dataDir, lifecycle, logger, notify } = options;
  const missing = whyNoRedis();
  if (missing !== undefined) {
    notify(`no shared cache: ${missing}, and REDIS_URL is not set`);
    return undefined;
  }
  const server = startRedis({ dataDir: join(dataDir, "redis"), ...portOf("redis", options) });
  lifecycle.defer("Redis", () =>
    server.then(
      (running) => running.stop(),
      () => undefined,
    ),
  );
  const { url, failed } = await explained(server, PORTS.redis);
  void failed.then((err) => logger.warn({ err }, "Redis has ended; the replicas go on without a shared cache"));
  return url;
}

function portOf(name: keyof typeof PORTS, { freePorts }: ServerOptions): { readonly port?: number } {
  return freePorts ? {} : { port: PORTS[name] };
}

/** Says first of all that a port is taken, if that is so. */
async function explained<T>(server: Promise<T>, port: number): Promise<T> {
  try {
    return await server;
  } catch (error) {
    await checkPorts("127.0.0.1", [{ flag: "--free-ports", port }]);
    throw error;
  }
}

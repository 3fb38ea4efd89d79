import { setTimeout as delay } from "node:timers/promises";
import { type Admin, Kafka, type KafkaConfig, type LogEntry, logLevel } from "kafkajs";
import { platformError } from "../errors.ts";
import type { Logger } from "../logging.ts";
import type { Position } from "./bus.ts";

/** How often a question is asked that Kafka can't answer yet, and the first pause in milliseconds, doubled each time. */
const MAX_ATTEMPTS = 5;
const FIRST_PAUSE_MS = 100;

/** How Kafka is reached. */
export interface KafkaConnection extends Pick<KafkaConfig, "ssl" | "sasl" | "socketFactory"> {
  /** Some brokers of the cluster, as `host:port`. */
  readonly brokers: readonly string[];
}

/** A partition with the offsets of its first record and behind its last one. */
export interface PartitionBounds extends Position {
  readonly low: bigint;
}

/**
 * A kafkajs client with bounded waits. It logs every try as an error; here they are debug lines, because whoever asked
 * logs or throws what came out in the end.
 */
export function createKafkaClient(connection: KafkaConnection, clientId: string, logger: Logger): Kafka {
  const { brokers, ...security } = connection;
  return new Kafka({
    ...security,
    brokers: [...brokers],
    clientId,
    connectionTimeout: 2_000,
    requestTimeout: 5_000,
    retry: { retries: 3, initialRetryTime: 100, maxRetryTime: 1_000 },
    logLevel: logLevel.INFO,
    logCreator: () => (entry) => debug(logger, entry),
  });
}

function debug(logger: Logger, { namespace, log }: LogEntry): void {
  const { message, timestamp: _, logger: __, ...details } = log;
  logger.debug({ ...details, namespace }, message);
}

/** The key of a partition in maps. */
export function placeKey({ topic, partition }: { topic: string; partition: number }): string {
  return `${topic}/${partition}`;
}

/** Says in the caller's terms that Kafka can't be reached or did not do its part. */
export async function reachable<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isKafkaError(error)) throw error;
    throw platformError("DEPENDENCY_UNAVAILABLE", "the event log can't be reached", { cause: error });
  }
}

/**
 * As {@link reachable}, for the first contact: says which brokers were asked and what came of it. For whoever runs the
 * process, not for callers.
 */
export async function firstContact<T>({ brokers }: KafkaConnection, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? deepest(error.cause) : error;
    if (!isKafkaError(cause)) throw error;
    const { name, message } = cause as Error;
    const what = /SASL/.test(name) ? "refuses the log-in" : "can't be reached";
    // All that a broker says to one who speaks in clear text where it wants TLS, or asks before a log-in.
    const hint = message === "Closed connection" ? "; perhaps it wants TLS or a log-in" : "";
    const sentence = `Kafka at ${brokers.join(", ")} ${what}: ${message.trim()}${hint}`;
    throw platformError("DEPENDENCY_UNAVAILABLE", sentence, { cause });
  }
}

/** The error that others were made of; kafkajs wraps what it tried again in an error that says only that. */
function deepest(error: unknown): unknown {
  let found = error;
  for (let depth = 0; depth < 5 && found instanceof Error && isKafkaError(found.cause); depth++) found = found.cause;
  return found;
}

/** Whether Kafka refused and says itself that it may not the next time; not when it could not be reached. */
function isRetriable(error: unknown): boolean {
  const { name, retriable } = error as { name?: unknown; retriable?: unknown };
  return name === "KafkaJSProtocolError" && retriable === true;
}

function isKafkaError(error: unknown): boolean {
  // By name, as kafkajs does itself: its classes can exist more than once in a process.
  return typeof error === "object" && error !== null && "name" in error && /^KafkaJS/.test(String(error.name));
}

/** Questions to the cluster. They fail with UNAVAILABLE (DEPENDENCY_UNAVAILABLE) when it can't be reached. */
export interface KafkaAdmin {
  bounds(topics: readonly string[]): Promise<PartitionBounds[]>;
  /** What a group has committed, by {@link placeKey}; partitions without a commit are absent. */
  committed(group: string, topics: readonly string[]): Promise<Map<string, bigint>>;
  deleteGroup(group: string): Promise<void>;
  /** Runs anything else. */
  ask<T>(question: (admin: Admin) => Promise<T>): Promise<T>;
  stop(): Promise<void>;
}

/**
 * One connection for questions, opened when first needed. kafkajs's admin client doesn't recover from every broken
 * connection or moved leader, so one that failed is replaced, and the question asked once more; up to five times in 1.5 s
 * when Kafka itself says that it may succeed then, as of a topic that is so new that its leaders don't know of it.
 */
export function createKafkaAdmin(kafka: Kafka): KafkaAdmin {
  let current: Promise<Admin> | undefined;

  const connected = (): Promise<Admin> => {
    current ??= connect(kafka.admin());
    return current;
  };
  const discard = (broken: Promise<Admin>): Promise<void> => {
    if (current === broken) current = undefined;
    return broken.then((admin) => admin.disconnect()).catch(() => undefined);
  };
  const once = async <T>(question: (admin: Admin) => Promise<T>): Promise<T> => {
    const admin = connected();
    try {
      return await question(await admin);
    } catch (error) {
      await discard(admin);
      throw error;
    }
  };
  const persistently = async <T>(question: (admin: Admin) => Promise<T>): Promise<T> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await once(question);
      } catch (error) {
        const passing = attempt === 1 || isRetriable(error);
        if (!passing || attempt === MAX_ATTEMPTS) throw error;
        await delay(FIRST_PAUSE_MS * 2 ** (attempt - 1));
      }
    }
  };
  const ask = <T>(question: (admin: Admin) => Promise<T>): Promise<T> => reachable(() => persistently(question));

  return {
    ask,
    async bounds(topics) {
      const found = await ask((admin) => Promise.all(topics.map((topic) => admin.fetchTopicOffsets(topic))));
      return found.flatMap((partitions, index) =>
        partitions
          .map(({ partition, high, low }) => ({
            topic: topics[index] ?? "",
            partition,
            offset: BigInt(high),
            low: BigInt(low),
          }))
          .sort((a, b) => a.partition - b.partition),
      );
    },
    async committed(group, topics) {
      const found = await ask((admin) => admin.fetchOffsets({ groupId: group, topics: [...topics] }));
      const offsets = new Map<string, bigint>();
      for (const { topic, partitions } of found) {
        for (const { partition, offset } of partitions) {
          // Negative: nothing was committed.
          if (BigInt(offset) >= 0n) offsets.set(placeKey({ topic, partition }), BigInt(offset));
        }
      }
      return offsets;
    },
    deleteGroup: (group) => ask(async (admin) => void (await admin.deleteGroups([group]))),
    async stop() {
      if (current !== undefined) await discard(current);
    },
  };
}

async function connect(admin: Admin): Promise<Admin> {
  try {
    await admin.connect();
    return admin;
  } catch (error) {
    await admin.disconnect().catch(() => undefined);
    throw error;
  }
}

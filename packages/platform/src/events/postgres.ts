import { isPassingError } from "../database/connection.ts";
import { openDatabase } from "../database/database.ts";
import { platformError } from "../errors.ts";
import type { Logger } from "../logging.ts";
import {
  checkRecords,
  type EventBus,
  knownTopic,
  type OutgoingRecord,
  type Position,
  partitionOf,
  type TopicSpec,
  withDeadLetters,
} from "./bus.ts";
import { createGroupWriter } from "./group-writer.ts";
import {
  append,
  appendHeartbeat,
  ensureTopic,
  type LogDatabase,
  type PlacedRecord,
  readLogId,
  readTails,
} from "./postgres-log.ts";
import { maintainRegularly } from "./postgres-maintenance.ts";
import { startPartitionReader } from "./postgres-reader.ts";
import { followTails } from "./postgres-tails.ts";
import { createSessionLocks } from "./session-locks.ts";

/** What {@link createPostgresBus} needs: the log's database and the topics in it. */
export interface PostgresBusOptions {
  /** The system role's URL of the log's own database, in which the migrations of `migrations/bus` have run. */
  readonly url: string;
  /** Every topic that is published or read. Their dead-letter topics come by themselves. */
  readonly topics: readonly TopicSpec[];
  readonly logger: Logger;
  /** How often the ends of the partitions are looked at; what this process publishes itself is seen at once. In milliseconds; 100 when absent. */
  readonly pollMs?: number;
  /** How often expired and superseded records are removed, in milliseconds; 60,000 when absent. */
  readonly maintenanceMs?: number;
}

/** One connection writes, one looks for news; the others read. */
const maxConnections = 6;

/**
 * Opens the event log in Postgres: small, exact, for one host. Partitions of a group are not balanced over its
 * members: the first one takes them all, the others stand by.
 *
 * @throws {Error} when the database can't be reached or has another number of partitions for a topic.
 */
export async function createPostgresBus(options: PostgresBusOptions): Promise<EventBus> {
  const { logger, pollMs = 100, maintenanceMs = 60_000 } = options;
  const db: LogDatabase = openDatabase({ url: options.url, applicationName: "licet-bus", maxConnections });
  const specs = withDeadLetters(options.topics);
  const topics = new Map(specs.map((topic) => [topic.name, topic]));
  try {
    for (const topic of specs) await ensureTopic(db, topic);
  } catch (error) {
    await db.destroy();
    throw error;
  }
  const ending = new AbortController();
  const { signal } = ending;
  const locks = createSessionLocks({ url: options.url, applicationName: "licet-bus-locks", logger });
  const tails = followTails({ db, pollMs, signal, logger });
  const writer = createGroupWriter<PlacedRecord>((records) => reachable(() => append(db, records)));
  const maintained = maintainRegularly(db, specs, { everyMs: maintenanceMs, signal, logger });
  const reading = new Set<Promise<void>>();

  const ends = async (names: readonly string[]): Promise<Position[]> => {
    for (const name of names) knownTopic(topics, name);
    const found = await reachable(() => readTails(db, names));
    return found.map(({ topic, partition, offset }) => ({ topic, partition, offset }));
  };

  return {
    async publish(records) {
      if (signal.aborted) throw platformError("SHUTTING_DOWN", "the event bus is stopped");
      checkRecords(records, topics);
      if (records.length === 0) return;
      await writer.write(records.map((record) => place(record, knownTopic(topics, record.topic))));
      tails.look();
    },
    async heartbeat(topic, issuedAt) {
      knownTopic(topics, topic);
      await reachable(() => appendHeartbeat(db, topic, issuedAt));
      tails.look();
    },
    id: () => reachable(async () => `postgres:${await readLogId(db)}`),
    endOffsets: ends,
    async subscribe(subscription) {
      const stopping = new AbortController();
      const stopped = AbortSignal.any([signal, stopping.signal]);
      const readers = (await ends(subscription.topics)).map(({ topic, partition }) =>
        startPartitionReader({ db, locks, logger, pollMs, place: { topic, partition }, subscription, signal: stopped }),
      );
      const unfollow = readers.map((reader) => tails.follow(reader));
      const ended = Promise.all(readers.map((reader) => reader.ended)).then(() => {
        for (const stop of unfollow) stop();
        reading.delete(ended);
      });
      reading.add(ended);
      tails.look();
      return {
        async caughtUp() {
          const targets = await ends(subscription.topics);
          tails.look();
          await Promise.all(readers.map((reader) => reader.caughtUp(targets)));
        },
        async stop() {
          stopping.abort(new Error("the subscription was stopped"));
          await ended;
        },
      };
    },
    async stop() {
      ending.abort(new Error("the event bus was stopped"));
      await Promise.all([...reading, writer.flushed(), tails.ended, maintained]);
      await locks.stop();
      await db.destroy();
    },
  };
}

function place(record: OutgoingRecord, topic: TopicSpec): PlacedRecord {
  return { ...record, partition: partitionOf(record.key, topic.partitions), compacted: topic.compacted };
}

/** Says in the caller's terms that the log's database can't be reached or can't work now. */
async function reachable<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isPassingError(error)) throw error;
    throw platformError("DEPENDENCY_UNAVAILABLE", "the event log can't be reached or can't work now", { cause: error });
  }
}

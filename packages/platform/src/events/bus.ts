/**
 * The event bus: topics cut into partitions, each an ordered, durable list of
 * records. There are two implementations, the Postgres log (`postgres.ts`) and
 * Kafka; both pass `testing/bus-conformance.ts`, which is the exact statement
 * of what follows.
 *
 * What it promises: records of one key are delivered one after the other, in
 * the order in which one publisher called `publish`; an acknowledged record
 * reaches every reader at least once; a record is acknowledged to its
 * publisher only after a durable commit. It does not promise exactly once: handlers keep
 * their own offset in the transaction of their effect (`loadOffset`) or are
 * idempotent.
 */

/** A record to be published. Text may hold neither NUL nor unpaired surrogates. */
export interface OutgoingRecord {
  readonly topic: string;
  /** Records of one key share a partition and keep their order. */
  readonly key: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly value: Uint8Array;
}

/** A published record with its place in the log. */
export interface BusRecord extends OutgoingRecord {
  readonly partition: number;
  readonly offset: bigint;
}

/** A place in one partition: the offset of the record that would be read next. */
export interface Position {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
}

/** Consecutive records of one partition, never empty. */
export interface Batch {
  readonly topic: string;
  readonly partition: number;
  readonly records: readonly BusRecord[];
  /**
   * The reader's position before this batch: the `nextOffset` of the batch
   * handled before it, or the offset where the reader started. The first
   * record can lie above it, because compaction and retention leave gaps.
   */
  readonly firstOffset: bigint;
  /** The reader's position once this batch is handled. */
  readonly nextOffset: bigint;
  /**
   * Aborts when the subscription stops or has lost the partition to another
   * reader: finish or roll back what is under way, begin nothing new.
   */
  readonly signal: AbortSignal;
}

/** A topic as the code declares it. */
export interface TopicSpec {
  readonly name: string;
  readonly partitions: number;
  /** Keeps only the last record of each key; there are no deletions. */
  readonly compacted: boolean;
  /**
   * How long a record is kept. Of a compacted topic: how long a superseded record may stay. The Postgres log keeps an
   * older record too while a group that has ever read the topic is not past it, and warns. Kafka can't do this: there
   * the retention must exceed the longest outage of any reader, or its records expire unread.
   */
  readonly retentionMs: number;
}

/** A topic of the code as it is found in the log. */
export interface FoundTopic {
  readonly spec: TopicSpec;
  /** Partitions that the log has; 0 where the topic is missing. */
  readonly partitions: number;
}

/**
 * Who reads: a `group`, whose members (in any process) share the partitions
 * and whose position outlives them, or one that reads `all` partitions for
 * itself and forgets its position.
 */
export type Reader =
  | {
      readonly kind: "group";
      readonly group: string;
      /**
       * Where the group continues, when the handler stores `nextOffset` itself,
       * in the transaction of its effect. Without it the bus stores positions.
       * It is asked again after every failure. The Postgres log is told the
       * position all the same, so that retention waits for the group, but
       * never takes it from there.
       */
      readonly loadOffset?: (topic: string, partition: number) => Promise<bigint>;
    }
  | {
      readonly kind: "all";
      /** Partitions that the positions don't name are read from their beginning. */
      readonly from: "beginning" | readonly Position[];
    };

/** Says that everything committed at its source before `issuedAt` lies before this place in the partition. */
export interface Heartbeat {
  readonly topic: string;
  readonly partition: number;
  readonly issuedAt: Date;
}

/** What is read, by whom, and who handles it; for {@link EventBus.subscribe}. */
export interface SubscribeOptions {
  readonly topics: readonly string[];
  readonly reader: Reader;
  /**
   * Handles one batch. Batches of one partition come one at a time, so at most
   * `maxBatchRecords` × partitions records are in flight. A batch whose handler
   * fails is delivered again, after a delay that grows from 50 ms to 5 s, until
   * it succeeds; the records of the next delivery may be cut differently.
   */
  readonly handle: (batch: Batch) => Promise<void>;
  /**
   * Called once the records before the heartbeat are handled. Heartbeats may
   * be left out when newer ones follow; they are never early.
   */
  readonly onHeartbeat?: (beat: Heartbeat) => void;
  /** {@link defaultBatchRecords} when absent. */
  readonly maxBatchRecords?: number;
}

/** A reading that has begun and goes on, through every failure, until it or its bus is stopped. */
export interface Subscription {
  /**
   * Resolves when everything that was published before the call has been
   * handled: by this subscription, or by other members of its group.
   *
   * @throws {ServiceError} UNAVAILABLE when the log can't be asked where it ends.
   * @throws {Error} when the subscription is stopped first.
   */
  caughtUp(): Promise<void>;
  /** Aborts the signal of running handlers, waits for them and reads no further. */
  stop(): Promise<void>;
}

/**
 * The log of all topics as one process uses it: it publishes, and reads in the background. What it promises, and what it
 * doesn't, stands at the head of this file.
 */
export interface EventBus {
  /**
   * Publishes records and resolves after all of them are committed durably.
   * What is refused (RangeError, OVERLOADED, SHUTTING_DOWN) is not published at
   * all. When it rejects with DEPENDENCY_UNAVAILABLE the outcome is unknown: none,
   * all or, on Kafka, some are published; publishing again may duplicate.
   *
   * @throws {ServiceError} UNAVAILABLE when the log can't be reached
   *   (DEPENDENCY_UNAVAILABLE) or too much waits to be written (OVERLOADED).
   * @throws {RangeError} when a record names an unknown topic, holds text that
   *   can't be stored or exceeds {@link busLimits}.
   */
  publish(records: readonly OutgoingRecord[]): Promise<void>;
  /** Sends a heartbeat through every partition of a topic, behind everything published so far. */
  heartbeat(topic: string, issuedAt: Date): Promise<void>;
  /**
   * Which log this is, such as `kafka:LkU3OEVBNTcwNTJENDM2Qk`: asked of the log each time, and another one wherever positions
   * of the one mean nothing in the other.
   *
   * @throws {ServiceError} UNAVAILABLE when the log can't be reached.
   */
  id(): Promise<string>;
  /** The position behind the last record of each partition. */
  endOffsets(topics: readonly string[]): Promise<Position[]>;
  /** Starts to read. Resolves once reading has begun, not once it has caught up. */
  subscribe(options: SubscribeOptions): Promise<Subscription>;
  /** Stops all subscriptions, writes what was accepted and closes the connections. */
  stop(): Promise<void>;
}

/** Most records of a batch when the subscription doesn't say. */
export const defaultBatchRecords = 500;

/** The delay before a batch is delivered again that failed `failures` times before: 50 ms, doubled up to 5 s. */
export function redeliveryDelayMs(failures: number): number {
  return Math.min(5_000, 50 * 2 ** Math.min(failures, 10));
}

/** What every implementation accepts at most. */
export const busLimits = {
  /** Bytes of one record's value. */
  valueBytes: 1024 * 1024,
  /** Characters of one record's key. */
  keyLength: 1024,
  /** Records of one call of `publish`. */
  publishRecords: 10_000,
  /** Bytes of the values of one call of `publish`. */
  publishBytes: 16 * 1024 * 1024,
} as const;

/**
 * What a handler throws when the offset it stored is not the batch's
 * `firstOffset`: another member handled the batch already. The bus asks
 * `loadOffset` again and goes on from there.
 */
export class StalePositionError extends Error {
  constructor(batch: Pick<Batch, "topic" | "partition" | "firstOffset">) {
    super(
      `the stored offset of ${batch.topic}/${batch.partition} is not ${batch.firstOffset}: another reader has moved it`,
    );
    this.name = "StalePositionError";
  }
}

/** The topic that takes records of `spec` which no handler can process; kept at least 90 days. */
export function deadLetterTopic(spec: TopicSpec): TopicSpec {
  return {
    name: `${spec.name}.dead`,
    partitions: 1,
    compacted: false,
    retentionMs: Math.max(spec.retentionMs, 90 * 24 * 60 * 60 * 1000),
  };
}

/** Topics together with their dead-letter topics. */
export function withDeadLetters(topics: readonly TopicSpec[]): TopicSpec[] {
  return topics.flatMap((topic) => [topic, deadLetterTopic(topic)]);
}

/**
 * The topic of a name.
 *
 * @throws {RangeError} when the bus has no such topic.
 */
export function knownTopic(topics: ReadonlyMap<string, TopicSpec>, name: string): TopicSpec {
  const topic = topics.get(name);
  if (topic === undefined) throw new RangeError(`the bus has no topic "${name}"`);
  return topic;
}

/** The partition of a key: FNV-1a (32 bits) over its UTF-8 bytes. It must never change. */
export function partitionOf(key: string, partitions: number): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(key, "utf8")) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  return (hash >>> 0) % partitions;
}

/**
 * Checks records against {@link busLimits} and the topics that exist.
 *
 * @throws {RangeError} naming the record's index, what is wrong and what would be right.
 */
export function checkRecords(records: readonly OutgoingRecord[], topics: ReadonlyMap<string, TopicSpec>): void {
  if (records.length > busLimits.publishRecords) {
    throw new RangeError(`publish takes at most ${busLimits.publishRecords} records, not ${records.length}`);
  }
  let bytes = 0;
  for (const [index, record] of records.entries()) {
    if (!topics.has(record.topic)) {
      throw new RangeError(`records[${index}]: the bus has no topic "${record.topic}"`);
    }
    if (record.value.length > busLimits.valueBytes || record.key.length > busLimits.keyLength) {
      throw new RangeError(
        `records[${index}]: a value has at most ${busLimits.valueBytes} bytes (this one ${record.value.length}), ` +
          `a key at most ${busLimits.keyLength} characters (this one ${record.key.length})`,
      );
    }
    for (const text of [record.key, ...Object.keys(record.headers), ...Object.values(record.headers)]) {
      if (text.includes("\0") || !text.isWellFormed()) {
        throw new RangeError(`records[${index}]: keys and headers hold neither NUL nor unpaired surrogates`);
      }
    }
    bytes += record.value.length;
  }
  if (bytes > busLimits.publishBytes) {
    throw new RangeError(`publish takes at most ${busLimits.publishBytes} bytes of values, not ${bytes}`);
  }
}

import type { Consumer, ConsumerGroupJoinEvent, Kafka } from "kafkajs";
import type { Logger } from "../logging.ts";
import type { SubscribeOptions } from "./bus.ts";
import { type PartitionBounds, placeKey } from "./kafka-client.ts";
import { KafkaPartitionReader } from "./kafka-reader.ts";

/** After how long without a heartbeat the group gives a member's partitions to others. */
const sessionTimeoutMs = 10_000;
/** How often a member asks whether the group has changed, so also how long a change takes. */
const groupHeartbeatMs = 500;
/** How long the broker keeps a fetch that finds nothing; stopping waits for it. */
const fetchWaitMs = 250;
/** Most bytes of a partition in one fetch, unless its first record alone is larger. */
const fetchBytes = 1024 * 1024;

/** What {@link runKafkaSession} needs: the group, and where its positions come from. */
export interface KafkaSessionOptions {
  readonly kafka: Kafka;
  readonly group: string;
  readonly subscription: SubscribeOptions;
  readonly logger: Logger;
  /** How many partitions the topics have together. */
  readonly partitions: number;
  load(place: { topic: string; partition: number }): Promise<bigint>;
  bounds(place: { topic: string; partition: number }): Promise<PartitionBounds>;
  /** Keeps the position of one that reads all, which has no group that would. */
  remember(place: { topic: string; partition: number }, offset: bigint): void;
  /** Called with the readers of the partitions that this member holds now. */
  onAssigned(readers: ReadonlyMap<string, KafkaPartitionReader>): void;
  readonly onProgress: () => void;
}

/**
 * One membership in a consumer group, from joining it to leaving it. kafkajs fetches and keeps the membership alive;
 * handling is done by a reader for each partition, so that a slow handler neither loses the membership nor holds up
 * other partitions.
 *
 * When the group changes, every partition's reader is ended and begun anew where the group's position is. A handler that
 * ends only after another member has begun can overlap with it: its signal has been aborted, and its position counts no more.
 *
 * @returns when `signal` aborts.
 * @throws {Error} what ended the session otherwise.
 */
export async function runKafkaSession(options: KafkaSessionOptions, signal: AbortSignal): Promise<void> {
  const session = new KafkaSession(options, signal);
  try {
    await session.run();
  } finally {
    await session.end();
  }
}

class KafkaSession {
  readonly #options: KafkaSessionOptions;
  readonly #consumer: Consumer;
  readonly #broken = Promise.withResolvers<never>();
  readonly #signal: AbortSignal;
  readonly #ending = new AbortController();
  /** Aborts when the group hands out its partitions anew. */
  #assignment = new AbortController();
  #readers = new Map<string, KafkaPartitionReader>();

  constructor(options: KafkaSessionOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = AbortSignal.any([signal, this.#ending.signal]);
    this.#consumer = options.kafka.consumer({
      groupId: options.group,
      allowAutoTopicCreation: false,
      sessionTimeout: sessionTimeoutMs,
      heartbeatInterval: groupHeartbeatMs,
      rebalanceTimeout: 3 * sessionTimeoutMs,
      maxWaitTimeInMs: fetchWaitMs,
      maxBytesPerPartition: fetchBytes,
      // The subscription begins a new session instead: kafkajs's restart keeps connections that are broken.
      retry: { retries: 2, initialRetryTime: 100, maxRetryTime: 500, restartOnFailure: async () => false },
    });
    this.#broken.promise.catch(() => undefined);
  }

  async run(): Promise<void> {
    const consumer = this.#consumer;
    const { subscription, partitions } = this.#options;
    const { GROUP_JOIN, REBALANCING, CRASH, START_BATCH_PROCESS } = consumer.events;
    consumer.on(GROUP_JOIN, ({ payload }) => this.#assign(payload));
    consumer.on(REBALANCING, () => this.#assignment.abort(new Error("the group hands out its partitions anew")));
    consumer.on(CRASH, ({ payload }) => this.#broken.reject(payload.error));
    consumer.on(START_BATCH_PROCESS, ({ payload }) => {
      if (payload.batchSize === 0) this.#readers.get(placeKey(payload))?.skip(BigInt(payload.lastOffset));
    });
    const stopped = Promise.withResolvers<void>();
    this.#signal.addEventListener("abort", () => stopped.resolve());
    if (this.#signal.aborted) return;
    await consumer.connect();
    await consumer.subscribe({ topics: [...subscription.topics], fromBeginning: true });
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: partitions,
      eachBatch: async ({ batch, resolveOffset }) => {
        const reader = this.#readers.get(placeKey(batch));
        if (reader?.offer(batch) !== true) return;
        resolveOffset(batch.lastOffset());
        await reader.makeRoom();
      },
    });
    await Promise.race([stopped.promise, this.#broken.promise]);
  }

  /** Ends the readers, which store their positions, and leaves the group. */
  async end(): Promise<void> {
    this.#ending.abort(new Error("reading has ended"));
    await Promise.all([...this.#readers.values()].map((reader) => reader.ended));
    await this.#consumer.disconnect().catch((error: unknown) => {
      this.#options.logger.debug({ err: error }, "the group was not left in order");
    });
  }

  #assign({ memberAssignment }: ConsumerGroupJoinEvent["payload"]): void {
    this.#assignment.abort(new Error("the group has handed out its partitions anew"));
    this.#assignment = new AbortController();
    const signal = AbortSignal.any([this.#signal, this.#assignment.signal]);
    const former = this.#readers;
    this.#readers = new Map();
    for (const [topic, partitions] of Object.entries(memberAssignment)) {
      // Until its reader knows where to begin.
      this.#consumer.pause([{ topic, partitions }]);
      for (const partition of partitions) {
        const key = placeKey({ topic, partition });
        const after = former.get(key)?.ended ?? Promise.resolve();
        this.#readers.set(key, this.#read({ topic, partition }, signal, after));
      }
    }
    this.#options.onAssigned(this.#readers);
  }

  #read(place: { topic: string; partition: number }, signal: AbortSignal, after: Promise<void>): KafkaPartitionReader {
    const { subscription, logger, load, bounds, remember, onProgress } = this.#options;
    const consumer = this.#consumer;
    const commit = async (offset: bigint): Promise<void> => {
      if (subscription.reader.kind === "all") return remember(place, offset);
      if (this.#readers.get(placeKey(place)) !== reader) throw new Error("the partition has another reader by now");
      await consumer.commitOffsets([{ ...place, offset: String(offset) }]);
    };
    const held = {
      ...place,
      signal,
      load: () => load(place),
      bounds: () => bounds(place),
      seek: (offset: bigint) => consumer.seek({ ...place, offset: String(offset) }),
      pause: () => consumer.pause([{ topic: place.topic, partitions: [place.partition] }]),
      resume: () => consumer.resume([{ topic: place.topic, partitions: [place.partition] }]),
      commit,
      restart: (reason: Error) => this.#broken.reject(reason),
    };
    const reader = new KafkaPartitionReader({ held, subscription, logger, after, onProgress });
    return reader;
  }
}

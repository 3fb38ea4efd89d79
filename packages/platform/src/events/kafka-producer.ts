import { CompressionTypes, type Kafka, type Producer, type RecordMetadata, type TopicMessages } from "kafkajs";
import type { OutgoingRecord } from "./bus.ts";
import { placeKey, reachable } from "./kafka-client.ts";

/** A record that knows its partition. */
export interface PartitionedRecord extends OutgoingRecord {
  readonly partition: number;
}

/** Appends records to their partitions. */
export interface KafkaAppender {
  /**
   * Resolves when all records are with all in-sync replicas. One call at a time.
   *
   * @throws {ServiceError} UNAVAILABLE: none, some or all of them are in the log.
   */
  append(records: readonly PartitionedRecord[]): Promise<void>;
  stop(): Promise<void>;
}

/** Most bytes for one partition in one request (kafkajs makes one batch of them), unless one record alone exceeds it. */
const batchBytes = 1024 * 1024;
/** Most records of one request: kafkajs's grouping by partition is quadratic. */
const requestRecords = 2_000;
/** How long the broker may wait for its replicas. */
const ackTimeoutMs = 4_000;

/**
 * Creates an appender on an idempotent producer: within its bounded retries the broker recognises repetitions by their
 * sequence numbers.
 *
 * A producer that failed is replaced. kafkajs takes the sequence numbers of a failed request back, although the broker
 * may have stored its records: the next request would carry the same numbers, and the broker would acknowledge it as
 * a repetition without storing it.
 */
export function createKafkaAppender(kafka: Kafka): KafkaAppender {
  let current: Promise<Producer> | undefined;

  const discard = async (): Promise<void> => {
    const broken = current;
    current = undefined;
    await broken?.then((producer) => producer.disconnect()).catch(() => undefined);
  };

  const send = async (records: readonly PartitionedRecord[]): Promise<void> => {
    try {
      current ??= connect(kafka);
      const producer = await current;
      const request = { acks: -1, timeout: ackTimeoutMs, compression: CompressionTypes.None };
      const acknowledged = await producer.sendBatch({ ...request, topicMessages: topicMessages(records) });
      checkAcknowledged(records, acknowledged);
    } catch (error) {
      await discard();
      throw error;
    }
  };

  return {
    append: (records) =>
      reachable(async () => {
        for (const request of requests(records)) await send(request);
      }),
    stop: discard,
  };
}

async function connect(kafka: Kafka): Promise<Producer> {
  const producer = kafka.producer({
    allowAutoTopicCreation: false,
    idempotent: true,
    maxInFlightRequests: 1,
    // kafkajs's default for an idempotent producer is to try for ever.
    retry: { retries: 5, initialRetryTime: 50, maxRetryTime: 1_000 },
    createPartitioner: () => partitionOfMessage,
  });
  try {
    await producer.connect();
    return producer;
  } catch (error) {
    await producer.disconnect().catch(() => undefined);
    throw error;
  }
}

function partitionOfMessage({ message }: { message: { partition?: number } }): number {
  if (message.partition === undefined) throw new TypeError("a record is sent without its partition");
  return message.partition;
}

/** Cuts records into requests of a bounded size; those of one partition keep their order. */
export function* requests(records: readonly PartitionedRecord[]): Generator<PartitionedRecord[]> {
  let request: PartitionedRecord[] = [];
  let bytes = new Map<string, number>();
  for (const record of records) {
    const place = placeKey(record);
    const added = recordBytes(record);
    const before = bytes.get(place) ?? 0;
    if (request.length === requestRecords || (before > 0 && before + added > batchBytes)) {
      yield request;
      request = [];
      bytes = new Map();
    }
    request.push(record);
    bytes.set(place, (bytes.get(place) ?? 0) + added);
  }
  if (request.length > 0) yield request;
}

/** About what a record takes in a batch: its parts and some bytes for their lengths. */
function recordBytes({ key, headers, value }: PartitionedRecord): number {
  const texts = [key, ...Object.keys(headers), ...Object.values(headers)];
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text) + 5, value.length + 20);
}

function topicMessages(records: readonly PartitionedRecord[]): TopicMessages[] {
  return [...Map.groupBy(records, ({ topic }) => topic)].map(([topic, list]) => ({
    topic,
    messages: list.map(({ key, headers, value, partition }) => ({
      key,
      partition,
      headers: { ...headers },
      value: Buffer.from(value.buffer, value.byteOffset, value.byteLength),
    })),
  }));
}

/**
 * Every partition must have answered. When a partition's leader changes between two tries of a request, kafkajs may
 * regard the new leader as done and report success for records that it never sent.
 */
export function checkAcknowledged(
  records: readonly PartitionedRecord[],
  acknowledged: readonly Pick<RecordMetadata, "topicName" | "partition">[],
): void {
  const answered = new Set(acknowledged.map(({ topicName, partition }) => placeKey({ topic: topicName, partition })));
  const missing = records.find((record) => !answered.has(placeKey(record)));
  if (missing === undefined) return;
  const error = new Error(`Kafka has not acknowledged the records of ${placeKey(missing)}`);
  error.name = "KafkaJSMissingAcknowledgement";
  throw error;
}

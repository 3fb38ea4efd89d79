import { platformError } from "../errors.ts";
import type { Logger } from "../logging.ts";
import {
  checkRecords,
  type EventBus,
  knownTopic,
  partitionOf,
  type Subscription,
  type TopicSpec,
  withDeadLetters,
} from "./bus.ts";
import { createGroupWriter } from "./group-writer.ts";
import { createKafkaAdmin, createKafkaClient, firstContact, type KafkaConnection } from "./kafka-client.ts";
import { heartbeatRecord } from "./kafka-heartbeat.ts";
import { createKafkaAppender, type PartitionedRecord } from "./kafka-producer.ts";
import { startKafkaSubscription } from "./kafka-subscription.ts";
import { checkTopics } from "./kafka-topics.ts";

/** What {@link createKafkaBus} needs: the cluster, and the topics in it. */
export interface KafkaBusOptions {
  readonly connection: KafkaConnection;
  /** What this process is called in the brokers' logs, such as `licet-validation`. */
  readonly clientId: string;
  /** Every topic that is published or read, as {@link applyTopics} has made them; with their dead-letter topics. */
  readonly topics: readonly TopicSpec[];
  readonly logger: Logger;
}

/**
 * Opens the event log in Apache Kafka. A publication is acknowledged when all in-sync replicas have it. Partitions of a
 * group are balanced over its members.
 *
 * A call of `publish` with records of several partitions, or larger than one request, is not atomic when it fails: see
 * {@link EventBus.publish}.
 *
 * @throws {Error} when a topic is missing or has another number of partitions.
 * @throws {ServiceError} UNAVAILABLE when Kafka can't be reached.
 */
export async function createKafkaBus(options: KafkaBusOptions): Promise<EventBus> {
  const { logger } = options;
  const kafka = createKafkaClient(options.connection, options.clientId, logger);
  const admin = createKafkaAdmin(kafka);
  try {
    await firstContact(options.connection, () => admin.ask((client) => checkTopics(client, options.topics)));
  } catch (error) {
    await admin.stop();
    throw error;
  }
  const topics = new Map(withDeadLetters(options.topics).map((topic) => [topic.name, topic]));
  const ending = new AbortController();
  const { signal } = ending;
  const appender = createKafkaAppender(kafka);
  const writer = createGroupWriter((records: readonly PartitionedRecord[]) => appender.append(records));
  const reading = new Set<Promise<Subscription>>();

  const write = (records: readonly PartitionedRecord[]): Promise<void> => {
    if (signal.aborted) throw platformError("SHUTTING_DOWN", "the event bus is stopped");
    return writer.write(records);
  };

  return {
    async publish(records) {
      checkRecords(records, topics);
      if (records.length === 0) return;
      await write(
        records.map((record) => ({
          ...record,
          partition: partitionOf(record.key, knownTopic(topics, record.topic).partitions),
        })),
      );
    },
    async heartbeat(topic, issuedAt) {
      const { partitions } = knownTopic(topics, topic);
      const beat = heartbeatRecord(topic, issuedAt);
      await write(Array.from({ length: partitions }, (_, partition) => ({ ...beat, partition })));
    },
    id: async () => `kafka:${(await admin.ask((client) => client.describeCluster())).clusterId}`,
    async endOffsets(names) {
      for (const name of names) knownTopic(topics, name);
      const bounds = await admin.bounds(names);
      return bounds.map(({ topic, partition, offset }) => ({ topic, partition, offset }));
    },
    async subscribe(subscription) {
      for (const name of subscription.topics) knownTopic(topics, name);
      const starting = startKafkaSubscription({ kafka, admin, subscription, logger, signal });
      reading.add(starting);
      const forget = (): boolean => reading.delete(starting);
      starting.catch(forget);
      const started = await starting;
      return {
        caughtUp: () => started.caughtUp(),
        stop: () => started.stop().finally(forget),
      };
    },
    async stop() {
      ending.abort(new Error("the event bus was stopped"));
      const subscriptions = await Promise.allSettled(reading);
      const stopped = subscriptions.map((one) => (one.status === "fulfilled" ? one.value.stop() : undefined));
      await Promise.all([...stopped, writer.flushed()]);
      await appender.stop();
      await admin.stop();
    },
  };
}

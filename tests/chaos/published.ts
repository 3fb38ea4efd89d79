import { randomUUID } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { topics } from "@licet/mesh/topics";
import { deadLetterTopic } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { Kafka, logLevel } from "kafkajs";
import type { HistoryEvent } from "./check-licenses.ts";
import { kafkaEnds, query } from "./convergence.ts";
import type { Stage } from "./stage.ts";

/** Reading the whole topic takes at most so long, in milliseconds. */
const READ_WITHIN_MS = 120_000;

/** The license events as the log holds them, read without any code of the product's bus. */
export async function* readPublished({ cluster, databases }: Stage): AsyncGenerator<HistoryEvent> {
  const topic = topicOf(LicenseChangedSchema).name;
  if (cluster !== undefined) {
    for (const value of await readTopic(cluster.direct, topic)) yield toEvent(value);
    return;
  }
  const rows = await query<{ value: Buffer }>(
    databases.url("bus", "licet_system"),
    'SELECT value FROM record WHERE topic = $1 ORDER BY partition, "offset"',
    [topic],
  );
  for (const { value } of rows) yield toEvent(value);
}

/** How many events went to each dead-letter topic, where there are any. */
export async function countDead({ cluster, databases }: Stage): Promise<string[]> {
  const names = topics.map((topic) => deadLetterTopic(topic).name);
  if (cluster === undefined) {
    const rows = await query<{ topic: string; count: string }>(
      databases.url("bus", "licet_system"),
      "SELECT topic, count(*) FROM record WHERE topic = ANY($1) GROUP BY 1",
      [names],
    );
    return rows.map(({ topic, count }) => `${count} in ${topic}`);
  }
  const found = await Promise.all(names.map(async (name) => ({ name, ends: await kafkaEnds(cluster.direct, name) })));
  return found.flatMap(({ name, ends }) => {
    const count = [...ends.values()].reduce((sum, end) => sum + end, 0n);
    return count === 0n ? [] : [`${count} in ${name}`];
  });
}

function toEvent(value: Uint8Array): HistoryEvent {
  const { tenantId, customerId, version } = fromBinary(LicenseChangedSchema, value);
  return { stream: `${tenantId}/${customerId}`, version: Number(version) };
}

/** All values of a topic, each partition in its order. */
async function readTopic(brokers: readonly string[], topic: string): Promise<Buffer[]> {
  const ends = await kafkaEnds(brokers, topic);
  const waiting = new Set([...ends].flatMap(([partition, end]) => (end > 0n ? [partition] : [])));
  const values: Buffer[] = [];
  const done = Promise.withResolvers<void>();
  const late = setTimeout(
    () => done.reject(new Error(`${topic} was not read within ${READ_WITHIN_MS} ms`)),
    READ_WITHIN_MS,
  );
  const kafka = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING });
  const consumer = kafka.consumer({ groupId: `chaos-${randomUUID()}`, maxWaitTimeInMs: 100 });
  const next = new Map<number, bigint>();
  try {
    if (waiting.size === 0) return [];
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({
      autoCommit: false,
      eachBatch: async ({ batch }) => {
        for (const { offset, value } of batch.messages) {
          // A rebalance begins anew.
          if (BigInt(offset) < (next.get(batch.partition) ?? 0n) || value === null) continue;
          next.set(batch.partition, BigInt(offset) + 1n);
          values.push(value);
        }
        if (BigInt(batch.lastOffset()) + 1n >= (ends.get(batch.partition) ?? 0n)) waiting.delete(batch.partition);
        if (waiting.size === 0) done.resolve();
      },
    });
    await done.promise;
    return values;
  } finally {
    clearTimeout(late);
    await consumer.disconnect().catch(() => undefined);
  }
}

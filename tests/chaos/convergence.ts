import { setTimeout as delay } from "node:timers/promises";
import { UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { topicOf } from "@licet/platform/events/cloudevent";
import { Kafka, logLevel } from "kafkajs";
import pg from "pg";
import { healthOf } from "./faults.ts";
import type { Stage } from "./stage.ts";

/** Everything must be as if nothing had happened so long after the last fault, in milliseconds. */
export const CONVERGES_WITHIN_MS = 30_000;
/** After that, it is waited so much longer, in milliseconds, so that the other invariants can be judged. */
const PATIENCE_MS = 15_000;

/** How long it took until everything was published, counted and fresh, or what was missing. */
export interface Convergence {
  readonly ms: number;
  /** What did not come about at all; empty where everything did. */
  readonly missing: readonly string[];
}

/**
 * Waits until every replica serves and none is degraded, no event is pending, and everything in the log of usage is counted.
 *
 * @param since when the last fault was over, in epoch milliseconds.
 */
export async function converge(stage: Stage, since: number, signal: AbortSignal): Promise<Convergence> {
  for (;;) {
    const missing = await whatIsMissing(stage).catch((error: Error) => [`the state can't be seen: ${error.message}`]);
    const ms = Date.now() - since;
    if (missing.length === 0 || ms > CONVERGES_WITHIN_MS + PATIENCE_MS || signal.aborted) return { ms, missing };
    await delay(200);
  }
}

async function whatIsMissing({ replicas, databases, cluster }: Stage): Promise<string[]> {
  const missing: string[] = [];
  for (const replica of replicas) {
    const health = await healthOf(replica);
    if (health?.status !== "SERVING") missing.push(`${replica.name} does not serve`);
    else if (health.degraded) missing.push(`${replica.name} is degraded`);
  }
  const pending = await query<{ count: string }>(
    databases.url("licensing", "licet_system"),
    "SELECT count(*) FROM outbox_pending",
  );
  if (pending[0]?.count !== "0") missing.push(`${pending[0]?.count} events are pending`);
  const spooled = await query<{ count: string }>(
    databases.url("metering", "licet_system"),
    "SELECT count(*) FROM usage_spool",
  );
  if (spooled[0]?.count !== "0") missing.push(`${spooled[0]?.count} events are spooled`);
  const ends =
    cluster === undefined
      ? await postgresEnds(databases.url("bus", "licet_system"))
      : await kafkaEnds(cluster.direct, topicOf(UsageTrackedSchema).name);
  const counted = await query<{ partition: number; next_offset: string }>(
    databases.url("metering", "licet_system"),
    "SELECT partition, next_offset FROM consumer_offset",
  );
  for (const [partition, end] of ends) {
    const next = counted.find((one) => one.partition === partition)?.next_offset ?? "0";
    if (end > 0n && BigInt(next) < end)
      missing.push(`usage of partition ${partition} is counted up to ${next} of ${end}`);
  }
  return missing;
}

/** The ends of a topic's partitions in Kafka. */
export async function kafkaEnds(brokers: readonly string[], topic: string): Promise<Map<number, bigint>> {
  const admin = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING, retry: { retries: 3 } }).admin();
  try {
    await admin.connect();
    const offsets = await admin.fetchTopicOffsets(topic);
    return new Map(offsets.map(({ partition, high }) => [partition, BigInt(high)]));
  } finally {
    await admin.disconnect();
  }
}

async function postgresEnds(url: string): Promise<Map<number, bigint>> {
  const rows = await query<{ partition: number; next_offset: string }>(
    url,
    "SELECT partition, next_offset FROM partition WHERE topic = $1",
    [topicOf(UsageTrackedSchema).name],
  );
  return new Map(rows.map(({ partition, next_offset }) => [partition, BigInt(next_offset)]));
}

/** Rows of one statement, on a connection of its own; int8 and numeric are text. */
export async function query<Row extends pg.QueryResultRow>(
  url: string,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000, statement_timeout: 60_000 });
  client.on("error", () => undefined);
  await client.connect();
  try {
    return (await client.query<Row>(text, [...values])).rows;
  } finally {
    await client.end();
  }
}

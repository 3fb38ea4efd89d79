import { UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { OutgoingRecord } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { sql, type Transaction } from "kysely";
import type { DB } from "./schema.ts";

/** A record in the spool. */
export interface SpooledRecord {
  readonly id: bigint;
  readonly record: OutgoingRecord;
}

/** How much is in the spool. */
export interface SpoolSize {
  /** Events at most: ids are given out in order and removed in order, and few are skipped. */
  readonly events: number;
  /** How long the oldest has been there, in milliseconds; 0 when there is none. */
  readonly oldestMs: number;
}

/** Most events read at once, and most bytes of their values, unless the first alone is larger. */
const BATCH_EVENTS = 500;
const BATCH_BYTES = 8 * 1024 * 1024;

const { name: topic } = topicOf(UsageTrackedSchema);

/** Adds records of a tenant; they are durable when the transaction has committed. For the app role. */
export async function addSpooled(
  tx: Transaction<DB>,
  tenant: string,
  records: readonly OutgoingRecord[],
): Promise<void> {
  // Senders are told "durable": a server that answers before it has flushed is overruled.
  await sql`
    SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'`.execute(
    tx,
  );
  await sql`
    INSERT INTO usage_spool (tenant_id, key, headers, value)
    SELECT ${tenant}, key, headers, value FROM unnest(
      ${records.map(({ key }) => key)}::text[],
      ${records.map(({ headers }) => JSON.stringify(headers))}::jsonb[],
      ${records.map(({ value }) => value)}::bytea[]
    ) AS record (key, headers, value)`.execute(tx);
}

/** How much is spooled, of all tenants, without counting it. For the system role. */
export async function measureSpool(tx: Transaction<DB>): Promise<SpoolSize> {
  const { rows } = await sql<{ events: bigint | null; oldest_ms: number | null }>`
    SELECT max(id) - min(id) + 1 AS events,
           (SELECT extract(epoch FROM clock_timestamp() - spooled_at)::float8 * 1000
              FROM usage_spool ORDER BY id LIMIT 1) AS oldest_ms
      FROM usage_spool`.execute(tx);
  const { events, oldest_ms } = rows[0] ?? { events: null, oldest_ms: null };
  return { events: Number(events ?? 0n), oldestMs: Math.max(0, oldest_ms ?? 0) };
}

/** The database's time, and whether nothing is spooled that was acknowledged before it. For the system role. */
export async function lookAtSpool(tx: Transaction<DB>): Promise<{ at: Date; isEmpty: boolean }> {
  const { rows } = await sql<{ at: Date; isEmpty: boolean }>`
    SELECT now() AS at, NOT EXISTS (SELECT FROM usage_spool) AS "isEmpty"`.execute(tx);
  if (rows[0] === undefined) throw new Error("SELECT now() returned no row");
  return rows[0];
}

/** The oldest records within the bounds of a batch, of all tenants. For the system role. */
export async function readSpooled(tx: Transaction<DB>): Promise<SpooledRecord[]> {
  const { rows } = await sql<{ id: bigint; key: string; headers: Record<string, string>; value: Buffer }>`
    SELECT id, key, headers, value FROM (
      SELECT id, key, headers, value, sum(octet_length(value)) OVER (ORDER BY id) AS bytes
        FROM (SELECT id, key, headers, value FROM usage_spool ORDER BY id LIMIT ${BATCH_EVENTS}) AS oldest) AS summed
     WHERE bytes <= ${BATCH_BYTES} OR bytes = octet_length(value)
     ORDER BY id`.execute(tx);
  return rows.map(({ id, ...record }) => ({ id, record: { topic, ...record } }));
}

/** Removes records that the log has acknowledged. For the system role. */
export async function removeSpooled(tx: Transaction<DB>, ids: readonly bigint[]): Promise<void> {
  await sql`DELETE FROM usage_spool WHERE id = ANY(${ids}::bigint[])`.execute(tx);
}

/** The last record that is spooled now; undefined when there is none. For the system role. */
export async function lastSpooled(tx: Transaction<DB>): Promise<bigint | undefined> {
  const { rows } = await sql<{ last: bigint | null }>`SELECT max(id) AS last FROM usage_spool`.execute(tx);
  return rows[0]?.last ?? undefined;
}

/** Whether a record up to `last` is still spooled. For the system role. */
export async function isSpooled(tx: Transaction<DB>, last: bigint): Promise<boolean> {
  const { rows } = await sql`SELECT FROM usage_spool WHERE id <= ${last} LIMIT 1`.execute(tx);
  return rows.length > 0;
}

import { createHash } from "node:crypto";
import { invalidArgument } from "@licet/platform/errors";
import { type RawBuilder, sql, type Transaction } from "kysely";
import { payloadOf, type UsageEvent } from "../domain/event.ts";
import type { DB } from "./schema.ts";

/** What became of a batch of events. */
export interface Counted {
  /** Events that were new and are in the sums now. */
  fresh: number;
  /** Events that were counted before, in this batch or an earlier one. */
  duplicates: number;
  /** Duplicates that say something else than what was counted, each contradiction once. */
  conflicts: number;
}

/**
 * Stores the events that are new and adds them to the hourly sums, in one statement; what was counted before changes
 * nothing. For the system role, in the transaction that moves the offset.
 */
export async function countEvents(tx: Transaction<DB>, events: readonly UsageEvent[]): Promise<Counted> {
  if (events.length === 0) return { fresh: 0, duplicates: 0, conflicts: 0 };
  const incoming = toRows(events);
  // Rows are written in the order of the key: transactions that meet wait for each other instead of deadlocking.
  const { rows } = await sql<{ fresh: bigint }>`
    WITH fresh AS (
      INSERT INTO usage_event (tenant_id, source, event_id, customer_id, license_id, metric, feature, action, quantity,
                               dimensions, occurred_at, accepted_at, actor, payload_hash)
      SELECT tenant_id, source, event_id, customer_id, license_id, metric, feature, action, quantity,
             dimensions, occurred_at, accepted_at, actor, payload_hash
        FROM ${incoming} AS incoming ORDER BY tenant_id, source, event_id
      ON CONFLICT DO NOTHING
      RETURNING tenant_id, customer_id, metric, date_trunc('hour', occurred_at, 'UTC') AS hour, feature, license_id, quantity
    ), summed AS (
      INSERT INTO usage_hourly AS total (tenant_id, customer_id, metric, hour, feature, license_id, quantity, events)
      SELECT tenant_id, customer_id, metric, hour, feature, license_id, sum(quantity), count(*)
        FROM fresh GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
      ON CONFLICT (tenant_id, customer_id, metric, hour, feature, license_id)
      DO UPDATE SET quantity = total.quantity + excluded.quantity, events = total.events + excluded.events
    )
    SELECT count(*) AS fresh FROM fresh`.execute(tx);
  const fresh = Number(rows[0]?.fresh ?? 0n);
  const duplicates = events.length - fresh;
  return { fresh, duplicates, conflicts: duplicates === 0 ? 0 : await quarantineConflicts(tx, incoming) };
}

/** Keeps those that contradict what was counted, each contradiction once. Returns how many are new. */
async function quarantineConflicts(tx: Transaction<DB>, incoming: RawBuilder<unknown>): Promise<number> {
  const result = await sql`
    INSERT INTO usage_quarantine (tenant_id, source, event_id, customer_id, license_id, metric, feature, action, quantity,
                                  dimensions, occurred_at, accepted_at, actor, payload_hash)
    SELECT incoming.* FROM ${incoming} AS incoming JOIN usage_event USING (tenant_id, source, event_id)
     WHERE usage_event.payload_hash <> incoming.payload_hash
    ON CONFLICT DO NOTHING`.execute(tx);
  return Number(result.numAffectedRows ?? 0n);
}

/** Events as rows of a query, with the columns that usage_event has, in its order. */
function toRows(events: readonly UsageEvent[]): RawBuilder<unknown> {
  const hashes = events.map((event) => createHash("sha256").update(payloadOf(event)).digest());
  return sql`(
    SELECT * FROM unnest(
      ${column(events, (event) => event.tenant)}::text[],
      ${column(events, (event) => event.source)}::text[],
      ${column(events, (event) => event.id)}::text[],
      ${column(events, (event) => event.customerId)}::text[],
      ${column(events, (event) => event.licenseId)}::text[],
      ${column(events, (event) => event.metric)}::text[],
      ${column(events, (event) => event.feature)}::text[],
      ${column(events, (event) => event.action)}::text[],
      ${column(events, (event) => event.quantity)}::numeric[],
      ${column(events, (event) => JSON.stringify(event.dimensions))}::jsonb[],
      ${column(events, (event) => event.occurredAt.toISOString())}::timestamptz[],
      ${column(events, (event) => event.acceptedAt.toISOString())}::timestamptz[],
      ${column(events, (event) => event.actor)}::text[],
      ${hashes}::bytea[]
    ) AS event (tenant_id, source, event_id, customer_id, license_id, metric, feature, action, quantity, dimensions,
                occurred_at, accepted_at, actor, payload_hash))`;
}

function column(events: readonly UsageEvent[], textOf: (event: UsageEvent) => string): RawBuilder<string[]> {
  return sql`${events.map(textOf)}`;
}

/** Which usage a question is about; empty codes mean all. */
export interface Filter {
  readonly tenant: string;
  readonly customerId: string;
  readonly metric: string;
  readonly feature: string;
  readonly licenseId: string;
  /** Included, a whole hour. */
  readonly start: Date;
  /** Excluded, a whole hour. */
  readonly end: Date;
}

/** The width of the buckets of an answer. */
export type Granularity = "total" | "day" | "hour";

/** What buckets are sorted by. */
export interface BucketKey {
  start: Date;
  metric: string;
  feature: string;
  licenseId: string;
}

/** What was used in one bucket. */
export interface Bucket extends BucketKey {
  /** A decimal. */
  quantity: string;
  events: bigint;
}

/** Metrics in one answer's totals. */
const MAX_TOTALS = 1_000;

/** Up to `limit` buckets with usage by time, metric, feature and license, behind `after`. */
export async function listBuckets(
  tx: Transaction<DB>,
  filter: Filter,
  granularity: Granularity,
  after: BucketKey | undefined,
  limit: number,
): Promise<Bucket[]> {
  const start =
    granularity === "total"
      ? sql<Date>`${filter.start}::timestamptz`
      : sql<Date>`date_trunc(${sql.lit(granularity)}, hour, 'UTC')`;
  return tx
    .selectFrom(
      matching(tx, filter)
        .select([
          start.as("start"),
          "metric",
          "feature",
          "license_id as licenseId",
          sql<string>`trim_scale(sum(quantity))::text`.as("quantity"),
          sql<bigint>`sum(events)::bigint`.as("events"),
        ])
        .groupBy([sql.ref("start"), "metric", "feature", "license_id"])
        .as("bucket"),
    )
    .select(["start", "metric", "feature", "licenseId", "quantity", "events"])
    .$if(after !== undefined, (query) => {
      const { start: from, metric, feature, licenseId } = after as BucketKey;
      return query.where(({ eb, refTuple, tuple }) =>
        eb(refTuple("start", "metric", "feature", "licenseId"), ">", tuple(from, metric, feature, licenseId)),
      );
    })
    .orderBy("start")
    .orderBy("metric")
    .orderBy("feature")
    .orderBy("licenseId")
    .limit(limit)
    .execute();
}

/**
 * The sums of the whole period by metric.
 *
 * @throws ServiceError INVALID_ARGUMENT when there are more than 1,000 metrics
 */
export async function listTotals(
  tx: Transaction<DB>,
  filter: Filter,
): Promise<{ metric: string; quantity: string; events: bigint }[]> {
  const totals = await matching(tx, filter)
    .select([
      "metric",
      sql<string>`trim_scale(sum(quantity))::text`.as("quantity"),
      sql<bigint>`sum(events)::bigint`.as("events"),
    ])
    .groupBy("metric")
    .orderBy("metric")
    .limit(MAX_TOTALS + 1)
    .execute();
  if (totals.length > MAX_TOTALS) {
    throw invalidArgument("metric", `must name one metric: the customer used more than ${MAX_TOTALS} in the period`);
  }
  return totals;
}

function matching(tx: Transaction<DB>, { tenant, customerId, metric, feature, licenseId, start, end }: Filter) {
  return tx
    .selectFrom("usage_hourly")
    .where("tenant_id", "=", tenant)
    .where("customer_id", "=", customerId)
    .where("hour", ">=", start)
    .where("hour", "<", end)
    .$if(metric !== "", (query) => query.where("metric", "=", metric))
    .$if(feature !== "", (query) => query.where("feature", "=", feature))
    .$if(licenseId !== "", (query) => query.where("license_id", "=", licenseId));
}

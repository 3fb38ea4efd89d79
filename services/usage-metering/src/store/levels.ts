import { type RawBuilder, sql, type Transaction } from "kysely";
import type { Level } from "../domain/level.ts";
import type { DB } from "./schema.ts";

/** A customer of a tenant. */
export interface CustomerKey {
  readonly tenant: string;
  readonly customerId: string;
}

/** The levels of a customer, by metric and license: at most {@link MAX_LEVELS}, the first of them. */
export interface CustomerLevels extends CustomerKey {
  /** How many events of the customer are in its levels. */
  readonly version: bigint;
  readonly levels: readonly Level[];
}

/** Levels of one customer that are told. */
const MAX_LEVELS = 500;
/** Changes that are added to levels at once, and how long that may take in milliseconds. */
const MAX_CHANGES = 100_000;
const RAISE_TIMEOUT_MS = 30_000;
/** Levels that are made pending at once. */
const MAX_MARKED = 10_000;

/**
 * Adds what was counted to the levels, each change once: it is taken away in the same transaction. At most 100,000 at once;
 * says whether there are more. For the system role.
 *
 * Late usage of a day or month that is neither a level's last nor the one before is in the lifetime only.
 */
export async function raiseLevels(tx: Transaction<DB>): Promise<boolean> {
  await sql`SELECT set_config('statement_timeout', ${String(RAISE_TIMEOUT_MS)}, true)`.execute(tx);
  const { rows } = await sql<{ taken: bigint }>`
    WITH change AS (
      DELETE FROM usage_change WHERE ctid = ANY(ARRAY(SELECT ctid FROM usage_change LIMIT ${MAX_CHANGES}))
      RETURNING tenant_id, customer_id, metric, license_id, day, quantity, events
    ), daily AS (
      SELECT tenant_id, customer_id, metric, license_id, day, date_trunc('month', day::timestamp)::date AS month,
             max(day) OVER level AS last_day, max(date_trunc('month', day::timestamp)::date) OVER level AS last_month,
             quantity, events
        FROM (SELECT tenant_id, customer_id, metric, license_id, day, sum(quantity) AS quantity, sum(events) AS events
                FROM change GROUP BY tenant_id, customer_id, metric, license_id, day) AS summed
      WINDOW level AS (PARTITION BY tenant_id, customer_id, metric, license_id)
    ), raised AS (
      INSERT INTO usage_level AS level (tenant_id, customer_id, metric, license_id, day, day_used, day_before_used,
                                        month, month_used, month_before_used, lifetime_used, events)
      SELECT tenant_id, customer_id, metric, license_id, last_day,
             coalesce(sum(quantity) FILTER (WHERE day = last_day), 0),
             coalesce(sum(quantity) FILTER (WHERE day = last_day - 1), 0),
             last_month,
             coalesce(sum(quantity) FILTER (WHERE month = last_month), 0),
             coalesce(sum(quantity) FILTER (WHERE month = ${monthBefore(sql`last_month`)}), 0),
             sum(quantity), sum(events)
        FROM daily GROUP BY tenant_id, customer_id, metric, license_id, last_day, last_month
      ON CONFLICT (tenant_id, customer_id, metric, license_id) DO UPDATE SET
        day = ${lastDay},
        day_used = ${usedOn("level", lastDay)} + ${usedOn("excluded", lastDay)},
        day_before_used = ${usedOn("level", sql`${lastDay} - 1`)} + ${usedOn("excluded", sql`${lastDay} - 1`)},
        month = ${lastMonth},
        month_used = ${usedIn("level", lastMonth)} + ${usedIn("excluded", lastMonth)},
        month_before_used =
          ${usedIn("level", monthBefore(lastMonth))} + ${usedIn("excluded", monthBefore(lastMonth))},
        lifetime_used = level.lifetime_used + excluded.lifetime_used,
        events = level.events + excluded.events,
        pending = true
    )
    SELECT count(*) AS taken FROM change`.execute(tx);
  return rows[0]?.taken === BigInt(MAX_CHANGES);
}

type Row = "level" | "excluded";
const lastDay = sql`greatest(level.day, excluded.day)`;
const lastMonth = sql`greatest(level.month, excluded.month)`;

function monthBefore(month: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`(${month} - interval '1 month')::date`;
}

/** What a row holds of a day: of its last one and the one before, and nothing of others. */
function usedOn(row: Row, day: RawBuilder<unknown>): RawBuilder<unknown> {
  const of = (column: string) => sql.ref(`${row}.${column}`);
  return sql`CASE ${day} WHEN ${of("day")} THEN ${of("day_used")} WHEN ${of("day")} - 1 THEN ${of("day_before_used")}
    ELSE 0 END`;
}

/** As {@link usedOn}, of a month. */
function usedIn(row: Row, month: RawBuilder<unknown>): RawBuilder<unknown> {
  const of = (column: string) => sql.ref(`${row}.${column}`);
  return sql`CASE ${month} WHEN ${of("month")} THEN ${of("month_used")}
    WHEN ${monthBefore(of("month"))} THEN ${of("month_before_used")} ELSE 0 END`;
}

/**
 * All levels of customers of whom one has changed since it was published, by tenant and customer, behind `after`; at most
 * `limit` customers. For the system role.
 */
export async function readPending(
  tx: Transaction<DB>,
  after: CustomerKey | undefined,
  limit: number,
): Promise<CustomerLevels[]> {
  const { rows } = await sql<Level & CustomerKey & { version: bigint }>`
    WITH due AS (
      SELECT DISTINCT tenant_id, customer_id FROM usage_level
       WHERE pending AND (tenant_id, customer_id) > (${after?.tenant ?? ""}, ${after?.customerId ?? ""})
       ORDER BY tenant_id, customer_id LIMIT ${limit})
    SELECT due.tenant_id AS tenant, due.customer_id AS "customerId", level.*
      FROM due CROSS JOIN LATERAL (
        SELECT metric, license_id AS "licenseId", day, trim_scale(day_used)::text AS "dayUsed",
               trim_scale(day_before_used)::text AS "dayBeforeUsed", month, trim_scale(month_used)::text AS "monthUsed",
               trim_scale(month_before_used)::text AS "monthBeforeUsed",
               trim_scale(lifetime_used)::text AS "lifetimeUsed", events, (sum(events) OVER ())::bigint AS version
          FROM usage_level WHERE tenant_id = due.tenant_id AND customer_id = due.customer_id
         ORDER BY metric, license_id LIMIT ${MAX_LEVELS}) AS level
     ORDER BY tenant_id, customer_id, metric, "licenseId"`.execute(tx);
  const customers: (CustomerLevels & { levels: Level[] })[] = [];
  for (const { tenant, customerId, version, ...level } of rows) {
    const last = customers.at(-1);
    if (last?.tenant === tenant && last.customerId === customerId) last.levels.push(level);
    else customers.push({ tenant, customerId, version, levels: [level] });
  }
  return customers;
}

/** Notes that levels were published as they were read; what has changed since waits on. For the system role. */
export async function markPublished(
  tx: Transaction<DB>,
  levels: readonly (CustomerKey & Pick<Level, "metric" | "licenseId" | "events">)[],
): Promise<void> {
  if (levels.length === 0) return;
  await sql`
    UPDATE usage_level AS level SET pending = false
      FROM unnest(
             ${levels.map(({ tenant }) => tenant)}::text[],
             ${levels.map(({ customerId }) => customerId)}::text[],
             ${levels.map(({ metric }) => metric)}::text[],
             ${levels.map(({ licenseId }) => licenseId)}::text[],
             ${levels.map(({ events }) => events)}::bigint[]
           ) AS published (tenant_id, customer_id, metric, license_id, events)
     WHERE level.tenant_id = published.tenant_id AND level.customer_id = published.customer_id
       AND level.metric = published.metric AND level.license_id = published.license_id
       AND level.events = published.events AND level.pending`.execute(tx);
}

/** Leaves the levels of a customer that are beyond what is told unpublished, until they change. For the system role. */
export async function passOver(tx: Transaction<DB>, { tenant, customerId, levels }: CustomerLevels): Promise<void> {
  const last = levels.at(-1);
  if (last === undefined || levels.length < MAX_LEVELS) return;
  await tx
    .updateTable("usage_level")
    .set({ pending: false })
    .where("tenant_id", "=", tenant)
    .where("customer_id", "=", customerId)
    .where("pending", "=", true)
    .where(({ eb, refTuple, tuple }) => eb(refTuple("metric", "license_id"), ">", tuple(last.metric, last.licenseId)))
    .execute();
}

/**
 * Makes levels pending that are not: they are in no log that is read now. At most 10,000 at once; says whether there are
 * more. For the system role.
 */
export async function publishAgain(tx: Transaction<DB>): Promise<boolean> {
  const result = await sql`
    UPDATE usage_level SET pending = true
     WHERE ctid = ANY(ARRAY(SELECT ctid FROM usage_level WHERE NOT pending LIMIT ${MAX_MARKED}))`.execute(tx);
  return result.numAffectedRows === BigInt(MAX_MARKED);
}

import { asSystem, type Databases } from "@licet/platform/database/database";
import { type Kysely, sql, type Transaction } from "kysely";
import type { BulkChange, Selection } from "../domain/bulk.ts";
import { failure } from "../errors.ts";
import type { DB } from "./schema.ts";

/** What can become of a license. */
export type LicenseOutcome = "changed" | "unchanged" | "failed" | "skipped";

/** A change of many licenses, and how far it is. */
export interface BulkOperation {
  readonly operationId: string;
  readonly change: BulkChange;
  readonly selection: Selection;
  readonly dryRun: boolean;
  readonly reason: string;
  readonly status: "running" | "completed" | "cancelled";
  /** Licenses up to this id have had their turn; absent: none has. */
  readonly lastId?: string;
  /** How many licenses were selected when it was started. */
  readonly total: bigint;
  readonly counts: Readonly<Record<LicenseOutcome, bigint>>;
  readonly resultsKept: number;
  readonly actor: string;
  readonly ipAddress: string;
  readonly userAgent: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** Lets one transaction at a time start imports or bulk operations of a tenant. */
export async function lockTenantRuns(tx: Transaction<DB>, tenant: string): Promise<void> {
  await sql`SELECT pg_advisory_xact_lock(hashtextextended(${`licet-bulk ${tenant}`}, 0))`.execute(tx);
}

/** How many bulk operations of a tenant run. */
export async function countRunningOperations(tx: Transaction<DB>, tenant: string): Promise<number> {
  const row = await tx
    .selectFrom("bulk_operation")
    .select((eb) => eb.fn.countAll<bigint>().as("count"))
    .where("tenant_id", "=", tenant)
    .where("status", "=", "running")
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

/** What a bulk operation is started with. */
export type NewOperation = Pick<
  BulkOperation,
  "operationId" | "change" | "selection" | "dryRun" | "reason" | "total" | "actor" | "ipAddress" | "userAgent"
>;

/** Begins a bulk operation. */
export async function insertOperation(tx: Transaction<DB>, tenant: string, operation: NewOperation): Promise<void> {
  await tx
    .insertInto("bulk_operation")
    .values({
      tenant_id: tenant,
      operation_id: operation.operationId,
      action: operation.change.action,
      selection: JSON.stringify(operation.selection),
      change: JSON.stringify(operation.change),
      dry_run: operation.dryRun,
      reason: operation.reason,
      total: operation.total,
      actor: operation.actor,
      ip_address: operation.ipAddress,
      user_agent: operation.userAgent,
    })
    .execute();
}

const columns = [
  "operation_id",
  "selection",
  "change",
  "dry_run",
  "reason",
  "status",
  "last_id",
  "total",
  "changed",
  "unchanged",
  "failed",
  "skipped",
  "results_kept",
  "actor",
  "ip_address",
  "user_agent",
  "created_at",
  "updated_at",
] as const;

function select(tx: Transaction<DB>, tenant: string, operationId: string) {
  return tx
    .selectFrom("bulk_operation")
    .select(columns)
    .where("tenant_id", "=", tenant)
    .where("operation_id", "=", operationId);
}

type OperationRow = Awaited<ReturnType<ReturnType<typeof select>["executeTakeFirstOrThrow"]>>;

function operationFromRow(row: OperationRow): BulkOperation {
  return {
    operationId: row.operation_id,
    // Written by `insertOperation`, so of these types but for dates, which JSON has as texts.
    change: changeFromJson(row.change as unknown as BulkChange),
    selection: row.selection as unknown as Selection,
    dryRun: row.dry_run,
    reason: row.reason,
    status: row.status as BulkOperation["status"],
    ...(row.last_id !== null && { lastId: row.last_id }),
    total: row.total,
    counts: { changed: row.changed, unchanged: row.unchanged, failed: row.failed, skipped: row.skipped },
    resultsKept: row.results_kept,
    actor: row.actor,
    ipAddress: row.ip_address,
    userAgent: row.user_agent,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

function changeFromJson(change: BulkChange): BulkChange {
  if (change.action !== "renew" || !("until" in change.end)) return change;
  return { ...change, end: { until: new Date(change.end.until) } };
}

/** @throws ServiceError NOT_FOUND `BULK_OPERATION_NOT_FOUND` */
export async function getOperation(tx: Transaction<DB>, tenant: string, operationId: string): Promise<BulkOperation> {
  return found(operationId, await select(tx, tenant, operationId).executeTakeFirst());
}

/** As {@link getOperation}, with its row locked: of all who carry it out, one at a time has its turn. */
export async function lockOperation(tx: Transaction<DB>, tenant: string, operationId: string): Promise<BulkOperation> {
  return found(operationId, await select(tx, tenant, operationId).forUpdate().executeTakeFirst());
}

function found(operationId: string, row: OperationRow | undefined): BulkOperation {
  if (!row) throw failure("BULK_OPERATION_NOT_FOUND", `There is no bulk operation ${operationId}.`);
  return operationFromRow(row);
}

/** Stores how far an operation is, whose row is locked. */
export async function updateOperation(tx: Transaction<DB>, tenant: string, operation: BulkOperation): Promise<void> {
  await tx
    .updateTable("bulk_operation")
    .set({
      status: operation.status,
      last_id: operation.lastId ?? null,
      ...operation.counts,
      results_kept: operation.resultsKept,
      updated_at: sql<Date>`now()`,
    })
    .where("tenant_id", "=", tenant)
    .where("operation_id", "=", operation.operationId)
    .execute();
}

/** Up to `limit` operations of all tenants that run, the one that waits longest first. For the system role. */
export async function listRunningOperations(
  db: Kysely<DB>,
  limit: number,
): Promise<{ tenantId: string; operationId: string }[]> {
  const rows = await db
    .selectFrom("bulk_operation")
    .select(["tenant_id", "operation_id"])
    .where("status", "=", "running")
    .orderBy("updated_at")
    .limit(limit)
    .execute();
  return rows.map((row) => ({ tenantId: row.tenant_id, operationId: row.operation_id }));
}

/** What became of a license, as `licet.licensing.v1.BulkResult`. */
export interface StoredResult {
  readonly licenseId: string;
  readonly failed: boolean;
  readonly result: Uint8Array;
}

/** Keeps what became of a license. */
export async function insertResult(
  tx: Transaction<DB>,
  tenant: string,
  operationId: string,
  { licenseId, failed, result }: StoredResult,
): Promise<void> {
  await tx
    .insertInto("bulk_result")
    .values({
      tenant_id: tenant,
      operation_id: operationId,
      license_id: licenseId,
      failed,
      result: Buffer.from(result),
    })
    .execute();
}

/** Which results a list shows. */
export interface ResultsPage {
  readonly operationId: string;
  readonly failedOnly: boolean;
  /** Empty: from the first on. */
  readonly after: string;
  readonly limit: number;
  /** The results of a page have at most so many bytes together, unless the first one alone has more. */
  readonly maxBytes: number;
}

/** Results in the order of their licenses, and whether there are more. */
export async function listResults(
  tx: Transaction<DB>,
  tenant: string,
  page: ResultsPage,
): Promise<{ results: StoredResult[]; more: boolean }> {
  const { operationId, failedOnly, after, limit, maxBytes } = page;
  const { rows } = await sql<{ license_id: string; failed: boolean; result: Buffer; found: bigint }>`
    SELECT license_id, failed, result, found FROM (
      SELECT *, sum(octet_length(result)) OVER (ORDER BY license_id) AS bytes,
             row_number() OVER (ORDER BY license_id) AS place, count(*) OVER () AS found
        FROM (SELECT license_id, failed, result FROM bulk_result
               WHERE tenant_id = ${tenant} AND operation_id = ${operationId} AND (failed OR NOT ${failedOnly})
                 AND (${after} = '' OR license_id > NULLIF(${after}, '')::uuid)
               ORDER BY license_id LIMIT ${limit + 1}) AS page) AS summed
     WHERE place <= ${limit} AND (place = 1 OR bytes <= ${maxBytes})
     ORDER BY license_id`.execute(tx);
  const results = rows.map(({ license_id: licenseId, failed, result }) => ({ licenseId, failed, result }));
  return { results, more: Number(rows[0]?.found ?? 0n) > rows.length };
}

/**
 * Deletes an import and a bulk operation whose end is 30 days ago, with their errors and results. One of each, as up to
 * 100,000 rows go with it and a statement has five seconds.
 *
 * @returns `limit` when there may be more, 0 otherwise
 */
export async function purgeRuns(databases: Databases<DB>, limit: number): Promise<number> {
  let full = false;
  for (const [table, id] of [
    ["import", "import_id"],
    ["bulk_operation", "operation_id"],
  ] as const) {
    const deleted = await asSystem(databases, (tx) =>
      sql`
        DELETE FROM ${sql.table(table)} WHERE (tenant_id, ${sql.ref(id)}) IN (
          SELECT tenant_id, ${sql.ref(id)} FROM ${sql.table(table)}
           WHERE updated_at < now() - interval '30 days' ORDER BY updated_at LIMIT 1)`.execute(tx),
    );
    full ||= deleted.numAffectedRows === 1n;
  }
  return full ? limit : 0;
}

import { sql, type Transaction } from "kysely";
import type { Cursor, Place, RowFormat } from "../domain/rows.ts";
import { failure } from "../errors.ts";
import type { DB } from "./schema.ts";

/** What is done with a row whose customer or license is there already. */
export type OnExisting = "fail" | "skip" | "update";

/** What an import was started with. */
export interface ImportSettings {
  readonly importId: string;
  readonly kind: "customers" | "licenses";
  readonly format: RowFormat;
  readonly dryRun: boolean;
  readonly onExisting: OnExisting;
}

/** What can become of a row. */
export type RowOutcome = "created" | "updated" | "unchanged" | "skipped" | "failed";

/** An import and how far it is. */
export interface Import extends ImportSettings {
  readonly status: "running" | "completed" | "failed" | "cancelled";
  /** How many bytes of the file were taken. */
  readonly nextOffset: number;
  /** The last of these bytes: the beginning of a row whose end is to come. */
  readonly rest: Uint8Array;
  readonly cursor: Cursor;
  /** Of CSV, behind the header. */
  readonly columns?: readonly string[];
  readonly counts: Readonly<Record<RowOutcome, bigint>>;
  readonly errorsKept: number;
  /** Why the file can't be read; empty otherwise. */
  readonly failure: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** Something wrong with a row. */
export interface RowError {
  readonly line: number;
  readonly field: string;
  readonly message: string;
  readonly reason: string;
}

const columns = [
  "import_id",
  "kind",
  "format",
  "dry_run",
  "on_existing",
  "status",
  "next_offset",
  "rest",
  "line",
  "skipping",
  "columns",
  "created",
  "updated",
  "unchanged",
  "skipped",
  "failed",
  "errors_kept",
  "failure",
  "created_at",
  "updated_at",
] as const;

function select(tx: Transaction<DB>, tenant: string, importId: string) {
  return tx.selectFrom("import").select(columns).where("tenant_id", "=", tenant).where("import_id", "=", importId);
}

type ImportRow = Awaited<ReturnType<ReturnType<typeof select>["executeTakeFirstOrThrow"]>>;

function importFromRow(row: ImportRow): Import {
  return {
    importId: row.import_id,
    kind: row.kind as Import["kind"],
    format: row.format as RowFormat,
    dryRun: row.dry_run,
    onExisting: row.on_existing as OnExisting,
    status: row.status as Import["status"],
    nextOffset: Number(row.next_offset),
    rest: row.rest,
    cursor: { line: Number(row.line), ...(row.skipping !== null && { skipping: row.skipping as Place }) },
    ...(row.columns !== null && { columns: row.columns }),
    counts: {
      created: row.created,
      updated: row.updated,
      unchanged: row.unchanged,
      skipped: row.skipped,
      failed: row.failed,
    },
    errorsKept: row.errors_kept,
    failure: row.failure,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/** Begins an import. Returns false when one of this id exists. */
export async function insertImport(tx: Transaction<DB>, tenant: string, settings: ImportSettings): Promise<boolean> {
  const result = await tx
    .insertInto("import")
    .values({
      tenant_id: tenant,
      import_id: settings.importId,
      kind: settings.kind,
      format: settings.format,
      dry_run: settings.dryRun,
      on_existing: settings.onExisting,
    })
    .onConflict((conflict) => conflict.columns(["tenant_id", "import_id"]).doNothing())
    .executeTakeFirst();
  return result.numInsertedOrUpdatedRows === 1n;
}

/** Gives up the tenant's imports that got no chunk for a day, and returns how many run then. */
export async function countRunningImports(tx: Transaction<DB>, tenant: string): Promise<number> {
  await sql`
    UPDATE import SET status = 'cancelled'
     WHERE tenant_id = ${tenant} AND status = 'running' AND updated_at < now() - interval '1 day'`.execute(tx);
  const row = await tx
    .selectFrom("import")
    .select((eb) => eb.fn.countAll<bigint>().as("count"))
    .where("tenant_id", "=", tenant)
    .where("status", "=", "running")
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

/** @throws ServiceError NOT_FOUND `IMPORT_NOT_FOUND` */
export async function getImport(tx: Transaction<DB>, tenant: string, importId: string): Promise<Import> {
  return found(importId, await select(tx, tenant, importId).executeTakeFirst());
}

/** As {@link getImport}, with its row locked: of several chunks at once, one has its turn. */
export async function lockImport(tx: Transaction<DB>, tenant: string, importId: string): Promise<Import> {
  return found(importId, await select(tx, tenant, importId).forUpdate().executeTakeFirst());
}

function found(importId: string, row: ImportRow | undefined): Import {
  if (!row) throw failure("IMPORT_NOT_FOUND", `There is no import ${importId}.`);
  return importFromRow(row);
}

/** Stores how far an import is, whose row is locked; returns it as it is stored. */
export async function updateImport(tx: Transaction<DB>, tenant: string, state: Import): Promise<Import> {
  const { updated_at: updatedAt } = await tx
    .updateTable("import")
    .set({
      status: state.status,
      next_offset: BigInt(state.nextOffset),
      rest: Buffer.from(state.rest),
      line: BigInt(state.cursor.line),
      skipping: state.cursor.skipping ?? null,
      columns: state.columns ? [...state.columns] : null,
      ...state.counts,
      errors_kept: state.errorsKept,
      failure: state.failure,
      updated_at: sql<Date>`now()`,
    })
    .where("tenant_id", "=", tenant)
    .where("import_id", "=", state.importId)
    .returning("updated_at")
    .executeTakeFirstOrThrow();
  return { ...state, updatedAt };
}

/** Keeps errors of rows, in their order. */
export async function insertRowErrors(
  tx: Transaction<DB>,
  tenant: string,
  importId: string,
  errors: readonly RowError[],
): Promise<void> {
  if (errors.length === 0) return;
  const rows = errors.map(({ line, ...error }) => ({
    tenant_id: tenant,
    import_id: importId,
    line: BigInt(line),
    ...error,
  }));
  await tx.insertInto("import_error").values(rows).execute();
}

/** Up to `limit` errors of an import in the order of its lines, behind the error `after`. */
export async function listRowErrors(
  tx: Transaction<DB>,
  tenant: string,
  importId: string,
  after: bigint,
  limit: number,
): Promise<(RowError & { readonly errorNo: bigint })[]> {
  const rows = await tx
    .selectFrom("import_error")
    .select(["error_no", "line", "field", "message", "reason"])
    .where("tenant_id", "=", tenant)
    .where("import_id", "=", importId)
    .where("error_no", ">", after)
    .orderBy("error_no")
    .limit(limit)
    .execute();
  return rows.map(({ error_no: errorNo, line, ...error }) => ({ errorNo, line: Number(line), ...error }));
}

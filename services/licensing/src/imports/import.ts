import { codeOf } from "@licet/platform/database/connection";
import { inTenant } from "@licet/platform/database/database";
import { invalidArgument, platformError, ServiceError } from "@licet/platform/errors";
import type { Call } from "@licet/platform/rpc/call";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { cutRows, type RawRow } from "../domain/rows.ts";
import { failure } from "../errors.ts";
import { columnsOf, type RowKind, readRow } from "../rpc/convert-rows.ts";
import { requireScope } from "../rpc/require-scope.ts";
import { type Import, insertRowErrors, lockImport, updateImport } from "../store/imports.ts";
import { inSavepoint, withoutTrace } from "../store/savepoint.ts";
import type { DB } from "../store/schema.ts";
import { applyCustomers } from "./customers.ts";
import { applyLicenses } from "./licenses.ts";
import { attempt, failedRow, type NumberedRow, type RowResult, type Work } from "./rows.ts";

/**
 * Rows applied in one transaction, with how far the import is: at first, at least and at most. What a row costs depends on
 * how much its customer holds, as each event carries all of it; so the number follows the time that a batch took.
 */
const BATCH_ROWS = { first: 50, least: 10, most: 500 };
/** How long a batch is to take, in milliseconds. */
const BATCH_MS = 400;
/** The longest row in bytes. */
const MAX_ROW_BYTES = 64 * 1024;
/** Errors kept of an import; the rest is counted. */
const MAX_ERRORS = 10_000;
/** How long a call goes on with the next batch, in milliseconds: well below its deadline. */
const CALL_MS = 2_500;
/** How often rows are applied that others write at the same time: each of a tenant's imports can be in the way once. */
const MAX_ATTEMPTS = 10;

/** A piece of a file. */
export interface Chunk {
  readonly importId: string;
  /** Where in the file it begins. */
  readonly offset: number;
  readonly data: Uint8Array;
  /** Whether the file ends with it. */
  readonly final: boolean;
}

/**
 * Applies the rows of a chunk, batch by batch, until it is through or its time is over. The rows of a batch, how far the
 * import is and what went wrong commit together: a crash at any point, and a chunk that comes again, apply nothing twice.
 *
 * @throws ServiceError NOT_FOUND `IMPORT_NOT_FOUND`; FAILED_PRECONDITION `IMPORT_OUT_OF_STEP`, `IMPORT_ENDED`
 */
export async function takeChunk(ctx: Context, call: Call, chunk: Chunk): Promise<Import> {
  const until = performance.now() + CALL_MS;
  const { signal } = call;
  for (let maxRows = BATCH_ROWS.first; ; ) {
    const begunAt = performance.now();
    const batch = (tx: Transaction<DB>) => takeBatch(ctx, tx, call, chunk, maxRows);
    const { state, more } = await inTenant(ctx.db, call.tenant, batch, { signal });
    ctx.wakeRelay();
    const endedAt = performance.now();
    if (!more || endedAt >= until) return state;
    const fitting = Math.round((maxRows * BATCH_MS) / (endedAt - begunAt + 1));
    maxRows = Math.min(BATCH_ROWS.most, Math.max(BATCH_ROWS.least, fitting));
  }
}

async function takeBatch(
  ctx: Context,
  tx: Transaction<DB>,
  call: Call,
  chunk: Chunk,
  maxRows: number,
): Promise<{ state: Import; more: boolean }> {
  const before = await lockImport(tx, call.tenant, chunk.importId);
  if (before.kind === "customers") requireScope(call, "customers:write");
  const end = chunk.offset + chunk.data.length;
  if (before.status === "failed" || (before.status === "completed" && end <= before.nextOffset)) {
    return { state: before, more: false };
  }
  checkStep(before, chunk);
  const fresh = chunk.data.subarray(before.nextOffset - chunk.offset);
  const final = chunk.final && end >= before.nextOffset;
  if (fresh.length === 0 && !final) return { state: before, more: false };
  const bytes = Buffer.concat([before.rest, fresh]);
  const { format } = before;
  const cut = cutRows(before.cursor, bytes, { format, final, maxRows, maxRowBytes: MAX_ROW_BYTES });
  const begun = beginFile(before, cut.rows);
  const ended = final && cut.drained;
  const missing = ended && format === "csv" && !begun.columns;
  const problem = begun.problem ?? (missing ? "the file is empty: its first line names the columns" : undefined);
  if (problem !== undefined) {
    const state = await updateImport(tx, call.tenant, { ...before, status: "failed", failure: problem });
    return { state, more: false };
  }
  const { columns, rows } = begun;
  const results = await applyRaw(ctx, tx, call, { ...before, ...(columns && { columns }) }, rows);
  await keepErrors(tx, call.tenant, before, results);
  const state = await updateImport(tx, call.tenant, {
    ...counted(before, results),
    ...(columns && { columns }),
    status: ended ? "completed" : "running",
    nextOffset: before.nextOffset - before.rest.length + (cut.drained ? bytes.length : cut.used),
    rest: cut.drained ? bytes.subarray(cut.used) : new Uint8Array(),
    cursor: cut.cursor,
  });
  return { state, more: !cut.drained };
}

function checkStep({ importId, status, nextOffset }: Import, { offset }: Chunk): void {
  if (status !== "running") {
    throw failure("IMPORT_ENDED", `Import ${importId} is ${status} and takes no more chunks.`, { status });
  }
  if (offset <= nextOffset) return;
  const message = `The chunk begins at ${offset}, but ${nextOffset} bytes of the file were taken: go on there.`;
  throw failure("IMPORT_OUT_OF_STEP", message, { next_offset: `${nextOffset}` });
}

/** Takes the header off the rows of a CSV, where it is still to come; `problem` says why the file can't be read. */
function beginFile(
  { kind, format, columns }: Import,
  rows: readonly RawRow[],
): { columns?: readonly string[]; rows: readonly RawRow[]; problem?: string } {
  const [first] = rows;
  if (format === "jsonl" || columns || !first) return { rows, ...(columns && { columns }) };
  if ("tooLong" in first) return { rows, problem: tooLong().message };
  try {
    return { columns: columnsOf(kind, first.bytes), rows: rows.slice(1) };
  } catch (error) {
    if (error instanceof ServiceError) return { rows, problem: error.message };
    throw error;
  }
}

function tooLong(): ServiceError {
  return invalidArgument(
    "",
    `the row has more than the ${MAX_ROW_BYTES} bytes that are possible; is a quote opened and never closed?`,
  );
}

async function applyRaw(
  ctx: Context,
  tx: Transaction<DB>,
  call: Call,
  settings: Import,
  raw: readonly RawRow[],
): Promise<RowResult[]> {
  const work: Work = { ctx, tx, call, settings, now: ctx.now() };
  const { kind } = settings;
  const apply =
    kind === "customers"
      ? () => readAndApply(work, "customers", raw, ({ message }) => message.customerId, applyCustomers)
      : () => readAndApply(work, "licenses", raw, ({ message }) => message.licenseId.toLowerCase(), applyLicenses);
  return settings.dryRun ? withoutTrace(tx, apply) : apply();
}

type Apply<K extends RowKind> = (work: Work, rows: readonly NumberedRow<K>[]) => Promise<RowResult[]>;

async function readAndApply<K extends RowKind>(
  work: Work,
  kind: K,
  raw: readonly RawRow[],
  idOf: (row: NumberedRow<K>) => string,
  apply: Apply<K>,
): Promise<RowResult[]> {
  const { columns } = work.settings;
  const results: RowResult[] = [];
  const rows: NumberedRow<K>[] = [];
  for (const part of raw) {
    const result = await attempt(part.line, () => {
      if ("tooLong" in part) throw tooLong();
      rows.push({ line: part.line, ...readRow(work.ctx.rules, kind, columns, part.bytes) });
      return "created";
    });
    if (result.outcome === "failed") results.push(result);
  }
  for (const group of distinct(rows, idOf)) results.push(...(await applyGroup(work, group, apply)));
  return results.sort((a, b) => a.line - b.line);
}

/** Cuts rows into groups, in their order, in which no id is twice; an empty id is none. */
function distinct<T>(rows: readonly T[], idOf: (row: T) => string): T[][] {
  const groups: T[][] = [];
  let seen = new Set<string>();
  for (const row of rows) {
    const id = idOf(row);
    const group = groups.at(-1);
    if (group && (id === "" || !seen.has(id))) group.push(row);
    else {
      groups.push([row]);
      seen = new Set();
    }
    seen.add(id);
  }
  return groups;
}

/** Applies rows together; where the database refuses what none of our rules does, the row that is to blame fails alone. */
async function applyGroup<K extends RowKind>(
  work: Work,
  rows: readonly NumberedRow<K>[],
  apply: Apply<K>,
): Promise<RowResult[]> {
  for (let attempts = 1; ; attempts++) {
    try {
      return await inSavepoint(work.tx, () => apply(work, rows));
    } catch (error) {
      if (error instanceof ServiceError && error.reason === "CONFLICT_RETRY" && attempts < MAX_ATTEMPTS) continue;
      if (!isRefusal(error)) throw error;
      const [row] = rows;
      if (!row || rows.length === 1) return rows.map(({ line }) => refused(work, line, error));
      const half = Math.ceil(rows.length / 2);
      const first = await applyGroup(work, rows.slice(0, half), apply);
      return [...first, ...(await applyGroup(work, rows.slice(half), apply))];
    }
  }
}

/** SQLSTATEs of data that can't be stored: data exceptions, constraint violations, program limits. */
function isRefusal(error: unknown): boolean {
  return /^(22|23|54)[0-9A-Z]{3}$/.test(codeOf(error) ?? "");
}

function refused({ ctx, call, settings }: Work, line: number, error: unknown): RowResult {
  const facts = { err: error, tenant: call.tenant, importId: settings.importId, line };
  ctx.logger.error(facts, "the database refuses a row of an import");
  return failedRow(line, platformError("INTERNAL", "the row can't be stored"));
}

function counted(before: Import, results: readonly RowResult[]): Import {
  const counts = { ...before.counts };
  let errors = before.errorsKept;
  for (const { outcome, errors: found } of results) {
    counts[outcome]++;
    errors += found.length;
  }
  return { ...before, counts, errorsKept: Math.min(errors, MAX_ERRORS) };
}

async function keepErrors(
  tx: Transaction<DB>,
  tenant: string,
  { importId, errorsKept }: Import,
  results: readonly RowResult[],
): Promise<void> {
  const errors = results.flatMap(({ errors: found }) => found);
  await insertRowErrors(tx, tenant, importId, errors.slice(0, MAX_ERRORS - errorsKept));
}

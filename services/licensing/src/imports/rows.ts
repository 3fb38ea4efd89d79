import { platformError, ServiceError } from "@licet/platform/errors";
import type { Call } from "@licet/platform/rpc/call";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import type { Row, RowKind } from "../rpc/convert-rows.ts";
import type { Import, RowError, RowOutcome } from "../store/imports.ts";
import type { DB } from "../store/schema.ts";

/** A row with the line that it begins on. */
export interface NumberedRow<K extends RowKind> extends Row<K> {
  readonly line: number;
}

/** What became of a row. */
export interface RowResult {
  readonly line: number;
  readonly outcome: RowOutcome;
  /** Of `failed`. */
  readonly errors: readonly RowError[];
}

/** Where rows are applied. */
export interface Work {
  readonly ctx: Context;
  readonly tx: Transaction<DB>;
  readonly call: Call;
  readonly settings: Import;
  readonly now: Date;
}

/** Codes of errors that a row is to blame for; the rest befall the call. */
const OF_ROW: ReadonlySet<string> = new Set(["INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"]);

/** Does something with a row; what the row is to blame for becomes its result. */
export async function attempt(line: number, apply: () => Promise<RowOutcome> | RowOutcome): Promise<RowResult> {
  try {
    return { line, outcome: await apply(), errors: [] };
  } catch (error) {
    if (!(error instanceof ServiceError) || !OF_ROW.has(error.code)) throw error;
    return failedRow(line, error);
  }
}

/** The result of a row that an error is about. */
export function failedRow(line: number, error: ServiceError): RowResult {
  const { reason } = error;
  const wrong =
    error.violations.length > 0
      ? error.violations.map(({ field, description }) => ({ field, message: description }))
      : [{ field: error.metadata.field ?? "", message: error.message }];
  return { line, outcome: "failed", errors: wrong.map((part) => ({ line, reason, ...part })) };
}

/** Somebody else has stored meanwhile what was not there when it was looked for: apply the rows again. */
export function overtaken(): ServiceError {
  return platformError("CONFLICT_RETRY", "somebody else wrote one of the rows meanwhile; send the chunk again");
}

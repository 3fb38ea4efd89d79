import {
  create,
  type DescEnum,
  type DescField,
  type JsonValue,
  type MessageInitShape,
  type MessageShape,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { CustomerRowSchema, LicenseRowSchema } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { Cycle } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { invalidArgument } from "@licet/platform/errors";
import { clip, decodeJson } from "@licet/platform/rpc/codec";
import type { MessageRules } from "@licet/platform/rpc/message-rules";
import { CsvError, parse } from "csv-parse/sync";
import { stringify } from "csv-stringify/sync";
import { guarded, unguarded } from "../domain/formula.ts";
import { grantsAt } from "../domain/grant.ts";
import type { License } from "../domain/license.ts";
import type { RowFormat } from "../domain/rows.ts";
import type { Customer } from "../store/customers.ts";
import { limitToProto, optionalTimestamp, toEnum } from "./convert.ts";

/** The message that each row of a file is. */
export const rowSchemas = { customers: CustomerRowSchema, licenses: LicenseRowSchema } as const;

/** What the rows of a file are. */
export type RowKind = keyof typeof rowSchemas;

/** A row of a file. */
export interface Row<K extends RowKind> {
  readonly message: MessageShape<(typeof rowSchemas)[K]>;
  /** The names of the fields that it gives: the columns of a CSV, whether or not their cells are empty, or the members. */
  given(): ReadonlySet<string>;
}

const BOM = "\uFEFF";

/**
 * The columns that a header names.
 *
 * @param line - the header, and what is before it in the file
 * @throws ServiceError INVALID_ARGUMENT that names the column that is unknown, repeated or missing
 */
export function columnsOf(kind: RowKind, line: Uint8Array): string[] {
  const columns = cellsOf(textOf(line));
  const known = rowSchemas[kind].fields.map(({ name }) => name);
  const hint = `the columns of ${kind} are ${known.join(", ")}, separated by commas`;
  for (const [index, column] of columns.entries()) {
    if (!known.includes(column)) throw invalidArgument("header", `names ${quote(column)}; ${hint}`);
    if (columns.indexOf(column) < index) throw invalidArgument("header", `names ${column} twice`);
  }
  const missing = required[kind].filter((column) => !columns.includes(column));
  if (missing.length > 0) throw invalidArgument("header", `lacks ${missing.join(", ")}; ${hint}`);
  return columns;
}

const required: Readonly<Record<RowKind, readonly string[]>> = {
  customers: ["customer_id"],
  licenses: ["customer_id", "product"],
};

/**
 * A row out of its bytes, held against the rules of the contract.
 *
 * @param columns - of CSV, those of the header
 * @throws ServiceError INVALID_ARGUMENT that names each field that is wrong, or says why the row can't be read
 */
export function readRow<K extends RowKind>(
  rules: MessageRules,
  kind: K,
  columns: readonly string[] | undefined,
  bytes: Uint8Array,
): Row<K> {
  const schema = rowSchemas[kind];
  const text = textOf(bytes);
  const json = columns ? rowFromCells(kind, columns, cellsOf(text)) : text;
  const message = decodeJson(schema, Buffer.from(typeof json === "string" ? json : JSON.stringify(json)));
  rules.check(schema, message);
  const given = () => new Set(columns ?? Object.keys(JSON.parse(text) as object).map((key) => nameOf(kind, key)));
  // `rowSchemas[kind]` is the schema of K, which the compiler does not see through the index.
  return { message: message as Row<K>["message"], given };
}

function nameOf(kind: RowKind, key: string): string {
  return rowSchemas[kind].fields.find(({ jsonName }) => jsonName === key)?.name ?? key;
}

function textOf(bytes: Uint8Array): string {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.startsWith(BOM) ? text.slice(1) : text;
  } catch {
    throw invalidArgument("", "the line is not UTF-8: save the file in that encoding");
  }
}

function cellsOf(text: string): string[] {
  try {
    // The line is one row: its end was cut off, and line feeds in it are inside of quotes.
    const options = { record_delimiter: "\n", relax_column_count: true, max_record_size: 0 };
    return (parse(text, options) as string[][])[0] ?? [];
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    const wrong = error.code === "CSV_QUOTE_NOT_CLOSED" ? "a quote is opened and never closed" : "a quote is misplaced";
    throw invalidArgument("", `${wrong}: a cell with a quote in it is quoted as a whole, and the quote inside doubled`);
  }
}

function rowFromCells(kind: RowKind, columns: readonly string[], cells: readonly string[]): Record<string, JsonValue> {
  if (cells.length !== columns.length) {
    throw invalidArgument("", `the row has ${cells.length} cells where the header has ${columns.length}`);
  }
  const json: Record<string, JsonValue> = {};
  for (const field of rowSchemas[kind].fields) {
    const cell = cells[columns.indexOf(field.name)];
    if (cell !== undefined && cell !== "") json[field.name] = jsonOfCell(field, cell);
  }
  return json;
}

function jsonOfCell(field: DescField, cell: string): JsonValue {
  if (field.fieldKind === "enum") return enumName(field.name, field.enum, cell);
  if (field.fieldKind === "scalar") return isText(field) ? unguarded(cell) : (literals.get(cell) ?? cell);
  if (field.fieldKind === "list" && field.listKind === "scalar") return cell.split(" ");
  if (field.fieldKind === "message") return cell;
  try {
    return JSON.parse(cell) as JsonValue;
  } catch {
    throw invalidArgument(field.name, `must be JSON, as in a file of JSON lines; it is ${quote(cell)}`);
  }
}

const literals: ReadonlyMap<string, boolean> = new Map([
  ["true", true],
  ["false", false],
]);

function isText(field: DescField): boolean {
  return field.fieldKind === "scalar" && field.scalar === ScalarType.STRING;
}

function enumName(name: string, { values }: DescEnum, cell: string): string {
  const value = values.find(({ number, localName }) => number > 0 && localName.toLowerCase() === cell);
  if (value) return value.name;
  const words = values.filter(({ number }) => number > 0).map(({ localName }) => localName.toLowerCase());
  throw invalidArgument(name, `must be one of ${words.join(", ")}; it is ${quote(cell)}`);
}

function quote(text: string): string {
  return JSON.stringify(clip(text));
}

/** The first line of a CSV with its end. */
export function headerOf(kind: RowKind): string {
  return toCsv(rowSchemas[kind].fields.map(({ name }) => name));
}

/** A row as a file has it, with its end. */
export function writeRow<K extends RowKind>(
  kind: K,
  format: RowFormat,
  init: MessageInitShape<(typeof rowSchemas)[K]>,
): string {
  const schema = rowSchemas[kind];
  // As in `readRow`, the compiler can't tell which of the schemas it is.
  const message = create(schema, init as never);
  const json = toJson(schema, message, { useProtoFieldName: true }) as Record<string, JsonValue>;
  if (format === "jsonl") return `${JSON.stringify(json)}\n`;
  return toCsv(schema.fields.map((field) => cellOfJson(field, json[field.name])));
}

function toCsv(cells: readonly string[]): string {
  return stringify([[...cells]], { record_delimiter: "\r\n", quoted_match: /^\s|\s$/ });
}

function cellOfJson(field: DescField, value: JsonValue | undefined): string {
  if (value === undefined) return "";
  if (field.fieldKind === "enum") {
    return field.enum.values.find(({ name }) => name === value)?.localName.toLowerCase() ?? "";
  }
  if (Array.isArray(value) && field.fieldKind === "list" && field.listKind === "scalar") return value.join(" ");
  if (typeof value === "object") return JSON.stringify(value);
  return isText(field) ? guarded(String(value)) : String(value);
}

/** A customer as a row. */
export function customerToRow(customer: Customer): MessageInitShape<typeof CustomerRowSchema> {
  return { ...customer, createdAt: timestampFromDate(customer.createdAt) };
}

/** A license as a row, with the grants that hold at `now`: what was decided about it, not what the clock makes of that. */
export function licenseToRow(license: License, now: Date): MessageInitShape<typeof LicenseRowSchema> {
  const { plan, cancellation, billingCycle, base } = license;
  return {
    licenseId: license.licenseId,
    customerId: license.customerId,
    product: license.product,
    ...(plan
      ? { plan: plan.code, planVersion: plan.version }
      : { features: [...base.features], limits: base.limits.map(limitToProto) }),
    seats: BigInt(base.seats ?? -1),
    validFrom: timestampFromDate(license.validFrom),
    validUntil: optionalTimestamp(license.validUntil),
    graceDays: license.graceDays,
    ...(billingCycle && { billingCycle: toEnum(Cycle, billingCycle) }),
    autoRenew: license.autoRenew,
    metadata: { ...license.metadata },
    status: toEnum(LicenseStatus, license.decidedStatus),
    statusReason: license.statusReason,
    // What the clock cancelled under an earlier release may still have it.
    suspendedByBilling: license.decidedStatus === "suspended" && license.suspendedByBilling,
    unpaidGraceUntil: optionalTimestamp(license.unpaidGraceUntil),
    cancelsAt: optionalTimestamp(cancellation?.at),
    cancelReason: cancellation?.reason ?? "",
    endedAt: optionalTimestamp(license.endedAt),
    createdAt: timestampFromDate(license.createdAt),
    grants: grantsAt(license.grants, now).map(({ activatedAt, expiresAt, ...rest }) => ({
      ...rest,
      activatedAt: timestampFromDate(activatedAt),
      expiresAt: optionalTimestamp(expiresAt),
    })),
    addOns: license.addOns.map(({ addOn, version, quantity, price }) => ({
      addOn,
      version,
      quantity,
      ...(price && { price: { currency: price.currency, amountMinor: price.amountMinor } }),
    })),
  };
}

import { type DescField, type DescMessage, isFieldSet, type Message } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { FieldViolation } from "../../errors.ts";

/** `0001-01-01T00:00:00Z` and `9999-12-31T23:59:59Z` in epoch seconds: what a google.protobuf.Timestamp may hold. */
const MIN_TIMESTAMP = -62_135_596_800n;
const MAX_TIMESTAMP = 253_402_300_799n;
/** ± 10,000 years in seconds: what a google.protobuf.Duration may hold. */
const MAX_DURATION = 315_576_000_000n;
const MAX_NANOS = 999_999_999;

const NUL = "must not hold the character U+0000";
const TIMESTAMP = "must lie in the years 0001 to 9999, with nanos from 0 to 999,999,999";
const DURATION =
  "must be at most 315,576,000,000 s either way, with nanos up to 999,999,999 of the same sign as the seconds";

/**
 * Whether everything in a message can be kept and shown. The binary format carries values that nothing behind it takes:
 * texts with U+0000, which neither the database nor the event log can store, and a Timestamp or Duration outside the range
 * that its type defines. It runs on every request, hence on plain properties; {@link malformedField} says what and where.
 *
 * @param except properties of the message that are not looked into.
 */
export function isWellFormed(value: unknown, except?: ReadonlySet<string>): boolean {
  if (typeof value === "string") return !value.includes("\0");
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return true;
  if (timeFlaw(value) !== undefined) return false;
  for (const name in value) {
    if (except?.has(name)) continue;
    if (name.includes("\0") || !isWellFormed((value as Record<string, unknown>)[name])) return false;
  }
  return true;
}

/** The first field that keeps a message from being {@link isWellFormed}, by a path such as `events[3].metric` or `metadata["note"]`. */
export function malformedField(schema: DescMessage, message: Message): FieldViolation {
  const properties = message as unknown as Readonly<Record<string, unknown>>;
  for (const field of schema.fields) {
    if (!isFieldSet(message, field)) continue;
    const value = field.oneof
      ? (properties[field.oneof.localName] as { value: unknown }).value
      : properties[field.localName];
    const flaw = flawOf(field, value);
    if (flaw !== undefined) return { ...flaw, field: `${field.name}${flaw.field}` };
  }
  return { field: "", description: NUL };
}

/** What is wrong with a field's value, with the path below the field's name; undefined when nothing is. */
function flawOf(field: DescField, value: unknown): FieldViolation | undefined {
  if (isWellFormed(value)) return undefined;
  if (field.fieldKind === "list") {
    const index = (value as unknown[]).findIndex((item) => !isWellFormed(item));
    return below(`[${index}]`, field.message, (value as unknown[])[index]);
  }
  if (field.fieldKind === "map") {
    const [key = "", item] =
      Object.entries(value as Record<string, unknown>).find(
        ([name, entry]) => name.includes("\0") || !isWellFormed(entry),
      ) ?? [];
    return below(`[${JSON.stringify(key)}]`, key.includes("\0") ? undefined : field.message, item);
  }
  return below("", field.message, value);
}

/** What is wrong with the value at `path`: with itself, or where it is a message, with a field below it. */
function below(path: string, schema: DescMessage | undefined, value: unknown): FieldViolation {
  if (schema === undefined) return { field: path, description: NUL };
  const description = timeFlaw(value as object);
  if (description !== undefined) return { field: path, description };
  const inside = malformedField(schema, value as Message);
  return { ...inside, field: `${path}.${inside.field}` };
}

/** What would be right for a Timestamp or Duration out of its range; undefined for anything else. */
function timeFlaw(value: object): string | undefined {
  const { $typeName, seconds, nanos } = value as Partial<Timestamp | Duration>;
  // A map of texts can have keys of these names, but no values of these types.
  if (typeof seconds !== "bigint" || typeof nanos !== "number") return undefined;
  if ($typeName === "google.protobuf.Timestamp") {
    const fits = seconds >= MIN_TIMESTAMP && seconds <= MAX_TIMESTAMP && nanos >= 0 && nanos <= MAX_NANOS;
    return fits ? undefined : TIMESTAMP;
  }
  if ($typeName === "google.protobuf.Duration") {
    const fits =
      seconds >= -MAX_DURATION &&
      seconds <= MAX_DURATION &&
      Math.abs(nanos) <= MAX_NANOS &&
      !((seconds > 0n && nanos < 0) || (seconds < 0n && nanos > 0));
    return fits ? undefined : DURATION;
  }
  return undefined;
}

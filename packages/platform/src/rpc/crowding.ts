import {
  type DescField,
  type DescMessage,
  getOption,
  type JsonObject,
  type JsonValue,
  type Message,
} from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { field as fieldRules, Ignore } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import type { FieldViolation } from "../errors.ts";

/** A field of a message type in which there can be too many, or below which. */
interface Crowdable {
  readonly field: DescField;
  /** The most items of a list or entries of a map; infinite where the contract states none. */
  readonly max: number;
  /** What its values are, where these in turn have such fields. */
  readonly below: DescMessage | undefined;
}

/** By message type; descriptors are as many as the contracts have. */
const known = new Map<DescMessage, readonly Crowdable[]>();

function crowdablesOf(schema: DescMessage): readonly Crowdable[] {
  const found = known.get(schema);
  if (found !== undefined) return found;
  const crowdables = schema.fields
    .map((field) => ({
      field,
      max: maxOf(field),
      below: field.message && !isIgnored(field) && canCrowd(field.message) ? field.message : undefined,
    }))
    .filter(({ max, below }) => Number.isFinite(max) || below !== undefined);
  known.set(schema, crowdables);
  return crowdables;
}

/**
 * Checks all lists and maps against `max_items` and `max_pairs`, wherever they are in a message. It comes before
 * the rules of what is in them: these judge and report each item, of which two bytes can make one, so that a message of
 * 1 MB of them would keep the process busy for half a minute. Items that the contract says are to be ignored are not looked into.
 *
 * @returns the first one with more than the contract allows.
 */
export function findCrowded(schema: DescMessage, message: Message): FieldViolation | undefined {
  for (const { field, max, below } of crowdablesOf(schema)) {
    const value = setValueOf(field, message);
    if (value === undefined) continue;
    const { name, fieldKind } = field;
    if (fieldKind === "message") {
      const violation = below && findCrowded(below, value as Message);
      if (violation !== undefined) return under(name, violation);
      continue;
    }
    const items = fieldKind === "list" ? (value as unknown[]) : Object.entries(value);
    if (items.length > max) return tooMany(field, max);
    if (below === undefined) continue;
    for (const [index, item] of items.entries()) {
      const [key, inner] = fieldKind === "list" ? [index, item] : (item as [string, unknown]);
      const violation = findCrowded(below, inner as Message);
      if (violation !== undefined) return under(`${name}[${JSON.stringify(key)}]`, violation);
    }
  }
  return undefined;
}

/** What was counted in the bytes of one message: items by field number, and what is in fields of one message, which may come in parts. */
interface Tally {
  readonly items: Map<number, number>;
  readonly below: Map<number, Tally>;
}

/**
 * As {@link findCrowded}, before anything is decoded, which for a message of 1 MB of empty items would take seconds. Entries
 * of maps are counted with those that repeat a key. What it passes over, such as packed numbers and values of maps, and bytes that
 * are no message, is left to the decoder and to {@link findCrowded}.
 */
export function findCrowdedBytes(schema: DescMessage, bytes: Uint8Array): FieldViolation | undefined {
  if (crowdablesOf(schema).length === 0) return undefined;
  try {
    return countIn(schema, new BinaryReader(bytes), bytes.length, { items: new Map(), below: new Map() });
  } catch {
    // The decoder says what is wrong with them.
    return undefined;
  }
}

function countIn(schema: DescMessage, reader: BinaryReader, end: number, tally: Tally): FieldViolation | undefined {
  const crowdables = crowdablesOf(schema);
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    if (wireType !== WireType.LengthDelimited) {
      reader.skip(wireType, number);
      continue;
    }
    const innerEnd = reader.uint32() + reader.pos;
    const crowdable = crowdables.find(({ field }) => field.number === number);
    const violation = crowdable && countField(crowdable, reader, innerEnd, tally);
    if (violation !== undefined) return violation;
    reader.pos = innerEnd;
  }
  return undefined;
}

function countField(
  { field, max, below }: Crowdable,
  reader: BinaryReader,
  end: number,
  { items, below: inside }: Tally,
): FieldViolation | undefined {
  const { name, number, fieldKind } = field;
  const index = items.get(number) ?? 0;
  items.set(number, index + 1);
  if (fieldKind === "message") {
    const tally = inside.get(number) ?? { items: new Map(), below: new Map() };
    inside.set(number, tally);
    const violation = below && countIn(below, reader, end, tally);
    return violation && under(name, violation);
  }
  if (index >= max) return tooMany(field, max);
  if (below === undefined || fieldKind !== "list") return undefined;
  const violation = countIn(below, reader, end, { items: new Map(), below: new Map() });
  return violation && under(`${name}[${index}]`, violation);
}

/** As {@link findCrowded}, for a message in protobuf's JSON format that was parsed and not decoded yet. */
export function findCrowdedJson(schema: DescMessage, json: JsonValue): FieldViolation | undefined {
  if (!isObject(json)) return undefined;
  for (const { field, max, below } of crowdablesOf(schema)) {
    const { name, jsonName, fieldKind } = field;
    const value = json[jsonName] ?? json[name];
    if (fieldKind === "message") {
      const violation = below && value !== undefined ? findCrowdedJson(below, value) : undefined;
      if (violation !== undefined) return under(name, violation);
    } else if (Array.isArray(value)) {
      if (value.length > max) return tooMany(field, max);
      if (below === undefined) continue;
      for (const [index, item] of value.entries()) {
        const violation = findCrowdedJson(below, item);
        if (violation !== undefined) return under(`${name}[${index}]`, violation);
      }
    } else if (isObject(value) && Object.keys(value).length > max) return tooMany(field, max);
  }
  return undefined;
}

function isObject(json: JsonValue | undefined): json is JsonObject {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}

/** Whether there can be too many of something anywhere in a message of the type. */
function canCrowd(type: DescMessage, seen = new Set<DescMessage>()): boolean {
  if (seen.has(type)) return false;
  seen.add(type);
  return type.fields.some(
    (field) => Number.isFinite(maxOf(field)) || (field.message !== undefined && canCrowd(field.message, seen)),
  );
}

/** Whether the contract leaves the items of a list to their handler, which judges each by itself. */
export function isIgnored(field: DescField): boolean {
  const { type } = getOption(field, fieldRules);
  return type.case === "repeated" && type.value.items?.ignore === Ignore.ALWAYS;
}

function maxOf(field: DescField): number {
  const { type } = getOption(field, fieldRules);
  const max = type.case === "repeated" ? type.value.maxItems : type.case === "map" ? type.value.maxPairs : undefined;
  // proto2 fields that are not set read as 0, which no contract states: it would allow nothing.
  return max ? Number(max) : Number.POSITIVE_INFINITY;
}

/** The value of a field, or undefined where another one of its oneof, or none, is set. */
function setValueOf({ oneof, localName }: DescField, message: Message): object | undefined {
  const properties = message as unknown as Readonly<Record<string, object | undefined>>;
  if (oneof === undefined) return properties[localName];
  const chosen = properties[oneof.localName] as { readonly case?: string; readonly value?: object } | undefined;
  return chosen?.case === localName ? chosen.value : undefined;
}

/** In the words of protovalidate. */
function tooMany({ name, fieldKind }: DescField, max: number): FieldViolation {
  return fieldKind === "list"
    ? { field: name, description: `must contain no more than ${max} item(s)`, reason: "repeated.max_items" }
    : { field: name, description: `map must be at most ${max} entries`, reason: "map.max_pairs" };
}

function under(name: string, violation: FieldViolation): FieldViolation {
  return { ...violation, field: `${name}.${violation.field}` };
}

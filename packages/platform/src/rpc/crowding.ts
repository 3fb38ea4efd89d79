import { type DescField, type DescMessage, getOption, type Message } from "@bufbuild/protobuf";
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

/** Finds the lists and maps that are longer than the contract allows. */
export type FindCrowded = (schema: DescMessage, message: Message) => FieldViolation | undefined;

/**
 * Creates a check of all lists and maps against `max_items` and `max_pairs`, wherever they are in a message. It comes before
 * the rules of what is in them: these judge and report each item, of which two bytes can make one, so that a message of
 * 1 MB of them would keep the process busy for half a minute. Items that the contract says are to be ignored are not looked into.
 */
export function createCrowding(): FindCrowded {
  const known = new Map<DescMessage, readonly Crowdable[]>();
  const crowdablesOf = (schema: DescMessage): readonly Crowdable[] => {
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
  };

  const find: FindCrowded = (schema, message) => {
    for (const { field, max, below } of crowdablesOf(schema)) {
      const value = setValueOf(field, message);
      if (value === undefined) continue;
      const { name, fieldKind } = field;
      if (fieldKind === "message") {
        const violation = below && find(below, value as Message);
        if (violation !== undefined) return under(name, violation);
        continue;
      }
      const items = fieldKind === "list" ? (value as unknown[]) : Object.entries(value);
      if (items.length > max) return tooMany(field, max);
      if (below === undefined) continue;
      for (const [index, item] of items.entries()) {
        const [key, inner] = fieldKind === "list" ? [index, item] : (item as [string, unknown]);
        const violation = find(below, inner as Message);
        if (violation !== undefined) return under(`${name}[${JSON.stringify(key)}]`, violation);
      }
    }
    return undefined;
  };
  return find;
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

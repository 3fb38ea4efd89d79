import {
  createRegistry,
  type DescField,
  type DescMessage,
  type DescMethod,
  fromBinary,
  fromJson,
  fromJsonString,
  type JsonObject,
  type JsonReadOptions,
  type JsonValue,
  type JsonWriteOptions,
  type Message,
} from "@bufbuild/protobuf";
import { isFieldError } from "@bufbuild/protobuf/reflect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "@licet/contracts/google/rpc/error_details_pb";
import { type FieldViolation, platformError, type ServiceError } from "../errors.ts";
import { findCrowdedBytes, findCrowdedJson } from "./crowding.ts";
import type { HandDecoder } from "./encoded.ts";

/** How much of a text that may quote the caller is repeated in an error, in characters. */
const MAX_QUOTED = 160;

/** What a request has to keep to before it is looked into. */
export interface RequestRules {
  readonly method: DescMethod;
  /** The largest request message, in bytes. */
  readonly maxRequestBytes: number;
  /** Tried before the generated code. */
  readonly decoder?: HandDecoder | undefined;
}

/** Messages that a hand decoder has made, and that therefore break no rule. */
const proved = new WeakSet<Message>();

/** Whether the rules of its contract are known to hold for a message, so that nobody needs to look. */
export function isProved(message: Message): boolean {
  return proved.has(message);
}

/**
 * JSON as the web port speaks it. Unknown keys and enum names are refused: a
 * misspelt field would otherwise be silently ignored. Answers carry fields at
 * their default too, because `"valid": false` must be seen.
 */
export const jsonOptions: Partial<JsonReadOptions & JsonWriteOptions> = {
  // A status among answers has the details of errors, as messages of any type.
  registry: createRegistry(ErrorInfoSchema, BadRequestSchema, RetryInfoSchema),
  ignoreUnknownFields: false,
  alwaysEmitImplicit: true,
};

/**
 * Decodes a method's request from the bytes of one message.
 *
 * @throws {ServiceError} MESSAGE_TOO_LARGE, and what {@link decodeBinary} throws.
 */
export function decodeRequest({ method, maxRequestBytes, decoder }: RequestRules, bytes: Uint8Array): Message {
  if (bytes.byteLength > maxRequestBytes) throw tooLarge(maxRequestBytes);
  const decoded = decoder?.(bytes);
  if (decoded !== undefined) {
    proved.add(decoded);
    return decoded;
  }
  return decodeBinary(method.input, bytes);
}

/**
 * Decodes a message in protobuf's binary format.
 *
 * @throws {ServiceError} INVALID_FIELD when a list or map has more than the contract allows, else MALFORMED_MESSAGE.
 */
export function decodeBinary(schema: DescMessage, bytes: Uint8Array): Message {
  refuseCrowded(schema, bytes);
  try {
    return fromBinary(schema, bytes);
  } catch (error) {
    throw malformed(schema, error);
  }
}

/**
 * Refuses a message in protobuf's binary format that would take long to decode.
 *
 * @throws {ServiceError} INVALID_FIELD when a list or map has more than the contract allows.
 */
export function refuseCrowded(schema: DescMessage, bytes: Uint8Array): void {
  const crowded = findCrowdedBytes(schema, bytes);
  if (crowded !== undefined) throw refused([crowded]);
}

/**
 * Decodes a request in protobuf's JSON format.
 *
 * @throws {ServiceError} INVALID_FIELD when a field has a value it can't hold, or more than the contract allows, else
 *   MALFORMED_MESSAGE.
 */
export function decodeJson(schema: DescMessage, bytes: Uint8Array): Message {
  let json: JsonValue | undefined;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    json = parse(text);
    // What can't be parsed is told in the decoder's words.
    if (json === undefined) return fromJsonString(schema, text, jsonOptions);
  } catch (error) {
    throw malformed(schema, error);
  }
  const crowded = findCrowdedJson(schema, json);
  if (crowded !== undefined) throw refused([crowded]);
  try {
    return fromJson(schema, json, jsonOptions);
  } catch (error) {
    throw malformed(schema, error, findField(schema, json));
  }
}

/** The error of a message whose fields break the rules of its contract. */
export function refused(violations: readonly FieldViolation[]): ServiceError {
  const sentences = violations.map(({ field, description }) =>
    field === "" ? description : `${field}: ${description}`,
  );
  return platformError("INVALID_FIELD", sentences.join("; "), { violations });
}

/**
 * The error for bytes or JSON that are not a message of the type.
 *
 * @param field the path of the field that can't be decoded, where that is known.
 */
export function malformed(schema: DescMessage, cause: unknown, field = fieldOf(cause)): ServiceError {
  const text = clip(cause instanceof Error ? cause.message : String(cause));
  if (field !== undefined) {
    return platformError("INVALID_FIELD", `${field}: ${text}`, { violations: [{ field, description: text }] });
  }
  return platformError("MALFORMED_MESSAGE", `the request is not a ${schema.typeName}: ${text}`);
}

/** The error for a request message of more bytes than its method takes. */
export function tooLarge(maxBytes: number): ServiceError {
  return platformError("MESSAGE_TOO_LARGE", `the message has more than the ${maxBytes} bytes that the method takes`, {
    metadata: { max_bytes: String(maxBytes) },
  });
}

/** Shortens a text that may quote what the caller sent. */
export function clip(text: string): string {
  // Well-formed again, because the cut may go through a pair of surrogates.
  return text.length <= MAX_QUOTED ? text : `${text.slice(0, MAX_QUOTED).toWellFormed()}…`;
}

/** The proto name of the field that connect's JSON parser stumbled over; it keeps only what the decoder told. */
function fieldOf(error: unknown): string | undefined {
  for (let next = error; next instanceof Error; next = next.cause) {
    if (isFieldError(next)) return next.field().name;
  }
  return undefined;
}

/**
 * The path, by proto names, of the first field whose JSON is no value of it.
 * The decoder's errors do not say that for each kind of field, so every part
 * is decoded alone until the smallest one that fails is found.
 */
function findField(schema: DescMessage, json: JsonValue | undefined): string | undefined {
  if (typeof json !== "object" || json === null || Array.isArray(json)) return undefined;
  for (const [key, value] of Object.entries(json)) {
    const field = schema.fields.find(({ name, jsonName }) => key === jsonName || key === name);
    if (field === undefined || isDecodable(schema, { [key]: value })) continue;
    return `${field.name}${findInside(schema, field, key, value)}`;
  }
  return undefined;
}

/** What follows the field's name in the path: an index, a path below, or nothing. */
function findInside(schema: DescMessage, field: DescField, key: string, value: JsonValue): string {
  const below = (item: JsonValue) => {
    const path = field.message && findField(field.message, item);
    return path === undefined ? "" : `.${path}`;
  };
  if (field.fieldKind === "list" && Array.isArray(value)) {
    const index = value.findIndex((item) => !isDecodable(schema, { [key]: [item] }));
    return index < 0 ? "" : `[${index}]${below(value[index] as JsonValue)}`;
  }
  return field.fieldKind === "message" ? below(value) : "";
}

function parse(text: string): JsonValue | undefined {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
}

function isDecodable(schema: DescMessage, json: JsonObject): boolean {
  try {
    fromJson(schema, json, jsonOptions);
    return true;
  } catch {
    return false;
  }
}

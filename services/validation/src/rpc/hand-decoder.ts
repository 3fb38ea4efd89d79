import { fromBinary } from "@bufbuild/protobuf";
import type { ConsistencyToken } from "@licet/contracts/licet/licensing/v1/customer_pb";
import {
  type BatchValidateRequest,
  type CheckFeaturesRequest,
  type ValidateFeatureRequest,
  ValidateFeatureRequestSchema,
  type ValidateStreamRequest,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import {
  lengthAt,
  readCode,
  readEntry,
  readText,
  readVarint,
  startOf,
  toBuffer,
} from "@licet/platform/rpc/hand-decoding";

// Decoders of the requests as clients write them: fields that are known, each once where it is no list, lengths written
// in the fewest bytes, texts of ASCII. What they return is what the generated code decodes, and keeps the contract's
// rules; for all else they return undefined, and the generated code and protovalidate say what it is. tests/fuzz compares
// the two by the million. The rules are those of validation_service.proto.

const MAX_CUSTOMER_BYTES = 255;
const MAX_FEATURES = 1_000;
const MAX_PAIRS = 64;
/** Of the context, in characters. */
const MOST = { key: 64, value: 256 };
const MAX_BATCH = 1_000;
const MAX_STREAMED = 100;

/** The tags of fields that have a length: the field's number times 8, plus 2. */
const CUSTOMER_ID = 0x0a;
const FEATURE = 0x12;
const CONTEXT = 0x1a;
const AT_LEAST = 0x2a;
const QUESTIONS = 0x0a;
const TOKEN_VERSION = 0x10;

/** Decodes a ValidateFeatureRequest; undefined: let the generated code do it. */
export function decodeQuestion(bytes: Uint8Array): ValidateFeatureRequest | undefined {
  return readQuestion(toBuffer(bytes), 0, bytes.length);
}

/** Decodes a CheckFeaturesRequest; undefined: let the generated code do it. */
export function decodeCheckFeatures(bytes: Uint8Array): CheckFeaturesRequest | undefined {
  const features: string[] = [];
  const fields = readFields(toBuffer(bytes), 0, bytes.length, features);
  if (fields === undefined || features.length === 0) return undefined;
  const { customerId, context, atLeast } = fields;
  return {
    $typeName: "licet.validation.v1.CheckFeaturesRequest",
    customerId,
    features,
    context,
    ...(atLeast && { atLeast }),
  };
}

/** Decodes a BatchValidateRequest, of which the questions need not keep the rules; undefined: let the generated code do it. */
export function decodeBatch(bytes: Uint8Array): BatchValidateRequest | undefined {
  const questions = readQuestions(toBuffer(bytes), MAX_BATCH);
  return questions && { $typeName: "licet.validation.v1.BatchValidateRequest", questions };
}

/** Decodes a ValidateStreamRequest, of which the questions need not keep the rules; undefined: let the generated code do it. */
export function decodeStream(bytes: Uint8Array): ValidateStreamRequest | undefined {
  const questions = readQuestions(toBuffer(bytes), MAX_STREAMED);
  return questions && { $typeName: "licet.validation.v1.ValidateStreamRequest", questions };
}

/** Where the customer's id of a CheckFeaturesRequest ends that has it first; undefined when it does not. */
export function endOfCustomer(bytes: Buffer): number | undefined {
  if (bytes[0] !== CUSTOMER_ID) return undefined;
  const start = startOf(bytes, 1);
  const end = start + lengthAt(bytes, 1);
  return end <= bytes.length ? end : undefined;
}

/** The customer's id of a CheckFeaturesRequest that has it first, up to `end`; undefined when it breaks a rule. */
export function customerBefore(bytes: Buffer, end: number): string | undefined {
  return readText(bytes, startOf(bytes, 1), end, 1, MAX_CUSTOMER_BYTES);
}

/** The features of a CheckFeaturesRequest that has nothing else from `start` on; undefined when it has, or one breaks a rule. */
export function readFeatures(bytes: Buffer, start: number): string[] | undefined {
  const features: string[] = [];
  for (let at = start; at < bytes.length; ) {
    if (bytes[at] !== FEATURE || features.length === MAX_FEATURES) return undefined;
    const begin = startOf(bytes, at + 1);
    const end = begin + lengthAt(bytes, at + 1);
    const feature = end <= bytes.length ? readCode(bytes, begin, end) : undefined;
    if (feature === undefined) return undefined;
    features.push(feature);
    at = end;
  }
  return features.length === 0 ? undefined : features;
}

function readQuestions(bytes: Buffer, most: number): ValidateFeatureRequest[] | undefined {
  const questions: ValidateFeatureRequest[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] !== QUESTIONS || questions.length === most) return undefined;
    const start = startOf(bytes, at + 1);
    const end = start + lengthAt(bytes, at + 1);
    if (!(end <= bytes.length)) return undefined;
    const question = readQuestion(bytes, start, end) ?? generated(bytes.subarray(start, end));
    if (question === undefined) return undefined;
    questions.push(question);
    at = end;
  }
  return questions.length === 0 ? undefined : questions;
}

/** One question by the generated code, as the code of the whole message would decode it; undefined where that throws. */
function generated(bytes: Uint8Array): ValidateFeatureRequest | undefined {
  try {
    return fromBinary(ValidateFeatureRequestSchema, bytes);
  } catch {
    return undefined;
  }
}

function readQuestion(bytes: Buffer, from: number, to: number): ValidateFeatureRequest | undefined {
  const fields = readFields(bytes, from, to, undefined);
  if (fields?.feature === undefined) return undefined;
  const { customerId, feature, context, atLeast } = fields;
  const question: ValidateFeatureRequest = {
    $typeName: "licet.validation.v1.ValidateFeatureRequest",
    customerId,
    feature,
    context,
    consume: {},
    explain: false,
  };
  if (atLeast !== undefined) question.atLeast = atLeast;
  return question;
}

interface Fields {
  readonly customerId: string;
  /** Undefined where the features are a list. */
  readonly feature: string | undefined;
  readonly context: Record<string, string>;
  readonly atLeast: ConsistencyToken | undefined;
}

/** The fields that both requests have. The feature is one, or where there is a list, they go there. */
function readFields(bytes: Buffer, from: number, to: number, features: string[] | undefined): Fields | undefined {
  let customerId: string | undefined;
  let feature: string | undefined;
  let atLeast: ConsistencyToken | undefined;
  const context: Record<string, string> = {};
  let pairs = 0;
  for (let at = from; at < to; ) {
    const tag = bytes[at];
    const start = startOf(bytes, at + 1);
    const end = start + lengthAt(bytes, at + 1);
    if (!(end <= to)) return undefined;
    if (tag === CUSTOMER_ID && customerId === undefined) {
      customerId = readText(bytes, start, end, 1, MAX_CUSTOMER_BYTES);
      if (customerId === undefined) return undefined;
    } else if (tag === FEATURE && (features === undefined ? feature === undefined : features.length < MAX_FEATURES)) {
      feature = readCode(bytes, start, end);
      if (feature === undefined) return undefined;
      features?.push(feature);
    } else if (tag === CONTEXT && pairs < MAX_PAIRS) {
      if (!readEntry(bytes, start, end, context, MOST)) return undefined;
      pairs++;
    } else if (tag === AT_LEAST && atLeast === undefined) {
      atLeast = readToken(bytes, start, end);
      if (atLeast === undefined) return undefined;
    } else return undefined;
    at = end;
  }
  if (customerId === undefined || (atLeast !== undefined && atLeast.customerId !== customerId)) return undefined;
  return { customerId, feature, context, atLeast };
}

/** A consistency token with both its fields, in their order. */
function readToken(bytes: Buffer, start: number, end: number): ConsistencyToken | undefined {
  if (bytes[start] !== CUSTOMER_ID) return undefined;
  const textStart = startOf(bytes, start + 1);
  const textEnd = textStart + lengthAt(bytes, start + 1);
  if (!(textEnd < end) || bytes[textEnd] !== TOKEN_VERSION) return undefined;
  const customerId = readText(bytes, textStart, textEnd, 1, MAX_CUSTOMER_BYTES);
  const version = readVarint(bytes, textEnd + 1, end);
  if (customerId === undefined || version === undefined) return undefined;
  return { $typeName: "licet.licensing.v1.ConsistencyToken", customerId, version: BigInt(version) };
}

import { create, type DescMessage, equals, fromBinary, type Message, toBinary, toJsonString } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  TrackUsageBatchRequestSchema,
  TrackUsageRequestSchema,
} from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import {
  BatchValidateRequestSchema,
  CheckFeaturesRequestSchema,
  ValidateFeatureRequestSchema,
  ValidateStreamRequestSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { HandDecoder } from "@licet/platform/rpc/encoded";
import { createMessageRules } from "@licet/platform/rpc/message-rules";
import { decodeTrackUsage, decodeTrackUsageBatch } from "@licet/usage-metering/rpc/hand-decoder";
import { decodeBatch, decodeCheckFeatures, decodeQuestion, decodeStream } from "@licet/validation/rpc/hand-decoder";
import { randomFrom } from "../random.ts";
import { below, noise, pick } from "./attack.ts";
import { trackRequest } from "./differential-events.ts";
import { createWorld, customers, exactly, features } from "./differential-world.ts";
import { mutate } from "./mutate.ts";

/** What came of comparing. */
export interface DifferentialReport {
  readonly seed: number;
  readonly cases: number;
  /** How many cases each hand decoder took, and how many requests had a prepared reply: where it is 0, nothing was compared. */
  readonly taken: Readonly<Record<string, number>>;
  /** Each difference, with the request's bytes in hex; a few of them. */
  readonly differences: readonly string[];
}

/** How many differences are told. */
const MAX_TOLD = 10;

interface Codec {
  readonly name: string;
  readonly schema: DescMessage;
  readonly decode: HandDecoder;
}

const codecs: readonly Codec[] = [
  { name: "ValidateFeatureRequest", schema: ValidateFeatureRequestSchema, decode: decodeQuestion },
  { name: "CheckFeaturesRequest", schema: CheckFeaturesRequestSchema, decode: decodeCheckFeatures },
  { name: "BatchValidateRequest", schema: BatchValidateRequestSchema, decode: decodeBatch },
  { name: "ValidateStreamRequest", schema: ValidateStreamRequestSchema, decode: decodeStream },
  { name: "TrackUsageRequest", schema: TrackUsageRequestSchema, decode: decodeTrackUsage },
  { name: "TrackUsageBatchRequest", schema: TrackUsageBatchRequestSchema, decode: decodeTrackUsageBatch },
];

/**
 * Compares, for so many requests, valid ones and mutations of them: whatever a hand decoder returns with what the generated
 * code decodes and with the contract's rules; and whatever the hot path answers with what the handler answers to what the
 * generated code decodes, while snapshots, catalogues and the clock change.
 */
export async function runDifferential(seed: number, cases: number): Promise<DifferentialReport> {
  const random = randomFrom(seed);
  const rules = createMessageRules();
  const world = createWorld(random);
  const taken: Record<string, number> = {};
  const differences: string[] = [];
  const note = (name: string) => {
    taken[name] = (taken[name] ?? 0) + 1;
  };
  for (let index = 0; index < cases && differences.length < MAX_TOLD; index++) {
    const codec = pick(random, codecs);
    const request = toBinary(codec.schema, create(codec.schema, fill(random, codec.schema)));
    const bytes = random() < 0.5 ? Buffer.from(request) : disorder(random, request);
    const find = (what: string) => void differences.push(`${codec.name}: ${what}: ${bytes.toString("hex")}`);
    const decoded = codec.decode(bytes);
    if (decoded !== undefined) {
      note(codec.name);
      const difference = compare(codec.schema, bytes, decoded, rules);
      if (difference !== undefined) find(difference);
    }
    if (index % 50 === 0) world.change();
    const difference = await world.compareReplies(codec.schema, bytes, note);
    if (difference !== undefined) find(difference);
  }
  return { seed, cases, taken, differences };
}

function compare(
  schema: DescMessage,
  bytes: Uint8Array,
  decoded: Message,
  rules: ReturnType<typeof createMessageRules>,
): string | undefined {
  try {
    const generated = fromBinary(schema, bytes);
    if (!equals(schema, generated, decoded, exactly)) {
      return `decoded ${toJsonString(schema, decoded)} in place of ${toJsonString(schema, generated)}`;
    }
    rules.check(schema, generated);
    return undefined;
  } catch (error) {
    return `took what is refused: ${error}`;
  }
}

const products = ["trading", "research", "", "Trading", "x/y"];

/** A request with plausible fields, most of which keep the rules. */
function fill(random: () => number, { typeName }: DescMessage): Record<string, unknown> {
  if (typeName === CheckFeaturesRequestSchema.typeName) {
    const some = Array.from({ length: 1 + below(random, 6) }, () => feature(random));
    return { ...question(random), features: some };
  }
  if (typeName === ValidateFeatureRequestSchema.typeName) return question(random);
  if (typeName.startsWith("licet.metering.")) return trackRequest(random, typeName);
  return { questions: Array.from({ length: below(random, 5) }, () => question(random)) };
}

function question(random: () => number): Record<string, unknown> {
  const customerId = random() < 0.95 ? pick(random, customers) : text(random);
  const rarely = <T>(value: () => T): T | undefined => (random() < 0.1 ? value() : undefined);
  const context =
    random() < 0.3 ? { product: pick(random, products) } : rarely(() => ({ [text(random)]: text(random) }));
  const token = () => ({ customerId: random() < 0.9 ? customerId : text(random), version: BigInt(below(random, 300)) });
  return {
    customerId,
    feature: feature(random),
    context: context ?? {},
    consume: rarely(() => ({ orders: "1" })) ?? {},
    atLeast: random() < 0.2 ? token() : undefined,
    explain: random() < 0.05,
  };
}

function feature(random: () => number): string {
  return random() < 0.95 ? pick(random, features) : text(random);
}

function text(random: () => number): string {
  const texts = ["", "é", "\0", "__proto__", "constructor", "A", ".a", "product", "x".repeat(63), "x".repeat(64), "-1"];
  return random() < 0.1 ? "y".repeat(below(random, 400)) : pick(random, texts);
}

/** The request with its fields cut, doubled and shuffled at places that a decoder trips over, or those of a message in it. */
function disorder(random: () => number, bytes: Uint8Array): Buffer {
  const tags = [0x0a, 0x12, 0x1a, 0x22, 0x2a, 0x32, 0x3a, 0x42, 0x4a, 0x52, 0x30, 0x10, 0x08, 0x80];
  switch (below(random, 6)) {
    case 0:
      return Buffer.concat([bytes, bytes]);
    case 1:
      return Buffer.concat([
        bytes,
        Buffer.from([pick(random, tags), below(random, 6)]),
        noise(random, below(random, 6)),
      ]);
    case 2: {
      const changed = Buffer.from(bytes);
      if (changed.length > 0)
        changed[below(random, changed.length)] = pick(random, [...tags, 0, 0x7f, 0xff, below(random, 256)]);
      return changed;
    }
    case 3:
    case 4:
      return disorderInside(random, bytes);
    default:
      return mutate(bytes, random).bytes;
  }
}

/** The message with one field that has a length emptied or disordered, in its place or behind all others. */
function disorderInside(random: () => number, bytes: Uint8Array): Buffer {
  const fields = lengthDelimited(bytes);
  if (fields.length === 0) return Buffer.from(bytes);
  const { number, at, start, end } = pick(random, fields);
  const value = random() < 0.3 ? Buffer.alloc(0) : disorder(random, bytes.subarray(start, end));
  const field = new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(value).finish();
  const parts = random() < 0.8 ? [bytes.subarray(0, at), field, bytes.subarray(end)] : [bytes, field];
  return Buffer.concat(parts);
}

/** Where fields that have a length are, and their values; of what is no message, those before it stops to be one. */
function lengthDelimited(bytes: Uint8Array) {
  const fields: { readonly number: number; readonly at: number; readonly start: number; readonly end: number }[] = [];
  const reader = new BinaryReader(bytes);
  try {
    while (reader.pos < bytes.length) {
      const at = reader.pos;
      const [number, wireType] = reader.tag();
      if (wireType === WireType.LengthDelimited) {
        const { length } = reader.bytes();
        fields.push({ number, at, start: reader.pos - length, end: reader.pos });
      } else reader.skip(wireType, number);
    }
  } catch {
    // It was a text.
  }
  return fields;
}

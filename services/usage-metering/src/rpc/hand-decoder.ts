import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type {
  TrackUsageBatchRequest,
  TrackUsageRequest,
} from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { UsageEvent } from "@licet/contracts/licet/metering/v1/usage_pb";
import {
  lengthAt,
  readCode,
  readEntry,
  readText,
  readVarint,
  startOf,
  toBuffer,
} from "@licet/platform/rpc/hand-decoding";

// Decoders of usage events as clients write them: the generated code and protovalidate would take more than a third of the
// time that accepting an event does. What they return is what the generated code decodes, and keeps the contract's rules, which
// are those of usage.proto; for all else they return undefined. tests/fuzz compares the two.

/** As many events as a batch may have. */
const MAX_EVENTS = 1_000;
/** Of ids and sources, in characters. */
const MAX_ID = 255;
const MAX_ACTION = 64;
const MAX_PAIRS = 20;
/** Of the dimensions, in characters. */
const MOST = { key: 64, value: 256 };
const MAX_UUID = 36;
const MAX_QUANTITY = 28;
const MAX_SECONDS = 253_402_300_799;
const MAX_NANOS = 999_999_999;

const uuidPattern = /^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$/;
const quantityPattern = /^[0-9]{1,18}(?:[.][0-9]{1,9})?$/;

/** The tags of fields: the field's number times 8, plus 2 where it has a length. */
const EVENT = 0x0a;
const ID = 0x0a;
const SOURCE = 0x12;
const CUSTOMER_ID = 0x1a;
const LICENSE_ID = 0x22;
const METRIC = 0x2a;
const FEATURE = 0x32;
const ACTION = 0x3a;
const QUANTITY = 0x42;
const DIMENSIONS = 0x4a;
const OCCURRED_AT = 0x52;
const SECONDS = 0x08;
const NANOS = 0x10;

/** Decodes a TrackUsageRequest; undefined: let the generated code do it. */
export function decodeTrackUsage(bytes: Uint8Array): TrackUsageRequest | undefined {
  const event = readEvents(toBuffer(bytes), 1)?.[0];
  return event && { $typeName: "licet.metering.v1.TrackUsageRequest", event };
}

/** Decodes a TrackUsageBatchRequest; undefined: let the generated code do it. */
export function decodeTrackUsageBatch(bytes: Uint8Array): TrackUsageBatchRequest | undefined {
  const events = readEvents(toBuffer(bytes), MAX_EVENTS);
  return events && { $typeName: "licet.metering.v1.TrackUsageBatchRequest", events };
}

function readEvents(bytes: Buffer, most: number): UsageEvent[] | undefined {
  const events: UsageEvent[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] !== EVENT || events.length === most) return undefined;
    const start = startOf(bytes, at + 1);
    const end = start + lengthAt(bytes, at + 1);
    const event = end <= bytes.length ? readEvent(bytes, start, end) : undefined;
    if (event === undefined) return undefined;
    events.push(event);
    at = end;
  }
  return events.length === 0 ? undefined : events;
}

function readEvent(bytes: Buffer, from: number, to: number): UsageEvent | undefined {
  let id: string | undefined;
  let source: string | undefined = "";
  let customerId: string | undefined;
  let licenseId: string | undefined = "";
  let metric: string | undefined;
  let feature: string | undefined = "";
  let action: string | undefined = "";
  let quantity: string | undefined;
  const dimensions: Record<string, string> = {};
  let occurredAt: Timestamp | undefined;
  let pairs = 0;
  /** A bit for each field that was there. */
  let seen = 0;
  for (let at = from; at < to; ) {
    const tag = bytes[at] as number;
    const start = startOf(bytes, at + 1);
    const end = start + lengthAt(bytes, at + 1);
    if (!(end <= to)) return undefined;
    const bit = tag === DIMENSIONS ? 0 : 1 << (tag >> 3);
    if ((seen & bit) !== 0) return undefined;
    seen |= bit;
    if (tag === ID) id = readText(bytes, start, end, 1, MAX_ID);
    else if (tag === SOURCE) source = readText(bytes, start, end, 0, MAX_ID);
    else if (tag === CUSTOMER_ID) customerId = readText(bytes, start, end, 1, MAX_ID);
    else if (tag === LICENSE_ID) licenseId = readMatch(bytes, start, end, MAX_UUID, uuidPattern);
    else if (tag === METRIC) metric = readCode(bytes, start, end);
    else if (tag === FEATURE) feature = readCode(bytes, start, end);
    else if (tag === ACTION) action = readText(bytes, start, end, 0, MAX_ACTION);
    else if (tag === QUANTITY) quantity = readMatch(bytes, start, end, MAX_QUANTITY, quantityPattern);
    else if (tag === DIMENSIONS) {
      if (pairs++ === MAX_PAIRS || !readEntry(bytes, start, end, dimensions, MOST)) return undefined;
    } else if (tag === OCCURRED_AT) {
      occurredAt = readTimestamp(bytes, start, end);
      if (occurredAt === undefined) return undefined;
    } else return undefined;
    at = end;
  }
  // What breaks a rule is undefined, as is what has to be there and is not.
  if (id === undefined || customerId === undefined || metric === undefined || quantity === undefined) return undefined;
  if (source === undefined || licenseId === undefined || feature === undefined || action === undefined)
    return undefined;
  const event: UsageEvent = {
    $typeName: "licet.metering.v1.UsageEvent",
    id,
    source,
    customerId,
    licenseId,
    metric,
    feature,
    action,
    quantity,
    dimensions,
  };
  if (occurredAt !== undefined) event.occurredAt = occurredAt;
  return event;
}

function readMatch(bytes: Buffer, start: number, end: number, most: number, pattern: RegExp): string | undefined {
  const text = readText(bytes, start, end, 1, most);
  return text !== undefined && pattern.test(text) ? text : undefined;
}

/** A time after 1970 with its seconds first, and its nanos where they are not 0. */
function readTimestamp(bytes: Buffer, start: number, end: number): Timestamp | undefined {
  if (bytes[start] !== SECONDS) return undefined;
  let middle = start + 1;
  while (middle < end && (bytes[middle] as number) >= 0x80) middle++;
  middle++;
  const seconds = readVarint(bytes, start + 1, middle);
  if (seconds === undefined || middle > end || seconds > MAX_SECONDS) return undefined;
  if (middle === end) return { $typeName: "google.protobuf.Timestamp", seconds: BigInt(seconds), nanos: 0 };
  const nanos = bytes[middle] === NANOS ? readVarint(bytes, middle + 1, end) : undefined;
  if (nanos === undefined || nanos > MAX_NANOS) return undefined;
  return { $typeName: "google.protobuf.Timestamp", seconds: BigInt(seconds), nanos };
}

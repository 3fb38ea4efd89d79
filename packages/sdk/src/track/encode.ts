/**
 * Encodes usage events by hand, straight into the body of a `TrackUsageBatchRequest`: tracking runs in the caller's
 * process, and generated code would cost it several times as much. A test compares it with the generated code.
 */
import type { PendingEvent } from "./usage-event.ts";

/** Events ready to be sent. */
export interface Batch {
  /** The body of a `TrackUsageBatchRequest`; bodies may be joined. */
  readonly body: Buffer;
  /** How many events are in it. */
  readonly count: number;
}

/** The most events that a request may have. */
export const MAX_BATCH_EVENTS = 1_000;
/** When a body has this many bytes, no event is added: one has at most 32 KiB, and a request at most 1 MiB. */
export const FULL_BATCH_BYTES: number = 960 * 1024;
/** An event has fewer bytes: 29 KiB of texts at 4 bytes a character, and their tags. */
const MAX_EVENT_BYTES = 32 * 1024;

/** Writes events; not to be shared by what runs at the same time. */
export interface Encoder {
  /** Takes events from `next` until there is none or the batch is full. */
  encode(next: () => PendingEvent | undefined): Batch;
}

/**
 * Creates an encoder.
 *
 * @param source which system sends the events
 * @param run makes the ids of this run's events differ from those of every other one
 */
export function createEncoder(source: string, run: string): Encoder {
  let bytes = Buffer.allocUnsafe(4 * MAX_EVENT_BYTES);
  return {
    encode(next) {
      let end = 0;
      let count = 0;
      while (count < MAX_BATCH_EVENTS && end < FULL_BATCH_BYTES) {
        const event = next();
        if (event === undefined) break;
        if (bytes.length - end < MAX_EVENT_BYTES) bytes = Buffer.concat([bytes], 2 * bytes.length);
        end = writeEvent(bytes, end, event, source, event.id ?? `${run}-${event.sequence.toString(36)}`);
        count += 1;
      }
      return { body: Buffer.from(bytes.subarray(0, end)), count };
    },
  };
}

/** Divides a batch of more than one event into two. */
export function halve({ body, count }: Batch): readonly [Batch, Batch] {
  const first = Math.ceil(count / 2);
  let at = 0;
  for (let i = 0; i < first; i++) {
    const [length, start] = readVarint(body, at + 1);
    at = start + length;
  }
  return [
    { body: body.subarray(0, at), count: first },
    { body: body.subarray(at), count: count - first },
  ];
}

/** Tags: the number of the field, and that it is length-delimited or, of a timestamp's parts, a varint. */
const tag = { event: 0x0a, dimension: 0x4a, occurredAt: 0x52, seconds: 0x08, nanos: 0x10, key: 0x0a, value: 0x12 };

function writeEvent(bytes: Buffer, start: number, event: PendingEvent, source: string, id: string): number {
  bytes[start] = tag.event;
  // Two bytes of length are right for nearly every event; others are moved.
  const content = start + 3;
  let end = writeText(bytes, content, 0x0a, id);
  end = writeText(bytes, end, 0x12, source);
  end = writeText(bytes, end, 0x1a, event.customerId);
  end = writeText(bytes, end, 0x22, event.licenseId);
  end = writeText(bytes, end, 0x2a, event.metric);
  end = writeText(bytes, end, 0x32, event.feature);
  end = writeText(bytes, end, 0x3a, event.action);
  end = writeText(bytes, end, 0x42, event.quantity);
  const { dimensions } = event;
  for (let i = 0; i < dimensions.length; i += 2) {
    end = writeDimension(bytes, end, dimensions[i] ?? "", dimensions[i + 1] ?? "");
  }
  end = writeTime(bytes, end, event.occurredAtMs);
  const length = end - content;
  const lengthBytes = varintSize(length);
  if (lengthBytes !== 2) bytes.copyWithin(start + 1 + lengthBytes, content, end);
  writeVarint(bytes, start + 1, length);
  return start + 1 + lengthBytes + length;
}

/** Writes a text; an empty one is not written, as proto3 wants. */
function writeText(bytes: Buffer, at: number, itsTag: number, text: string): number {
  if (text === "") return at;
  bytes[at] = itsTag;
  return writeContent(bytes, at + 1, text);
}

function writeContent(bytes: Buffer, at: number, text: string): number {
  const { length } = text;
  if (length < 128) {
    const start = at + 1;
    let i = 0;
    for (; i < length; i++) {
      const unit = text.charCodeAt(i);
      if (unit >= 0x80) break;
      bytes[start + i] = unit;
    }
    if (i === length) {
      bytes[at] = length;
      return start + length;
    }
  }
  const size = Buffer.byteLength(text);
  const start = writeVarint(bytes, at, size);
  return start + bytes.write(text, start, size, "utf8");
}

function writeDimension(bytes: Buffer, at: number, name: string, value: string): number {
  const [nameSize, valueSize] = [Buffer.byteLength(name), Buffer.byteLength(value)];
  bytes[at] = tag.dimension;
  const length = 2 + varintSize(nameSize) + nameSize + varintSize(valueSize) + valueSize;
  let end = writeVarint(bytes, at + 1, length);
  bytes[end] = tag.key;
  end = writeContent(bytes, end + 1, name);
  bytes[end] = tag.value;
  return writeContent(bytes, end + 1, value);
}

function writeTime(bytes: Buffer, at: number, ms: number): number {
  const seconds = Math.floor(ms / 1000);
  const nanos = (ms - 1000 * seconds) * 1_000_000;
  bytes[at] = tag.occurredAt;
  let end = at + 2;
  if (seconds !== 0) {
    bytes[end] = tag.seconds;
    end = writeInt64(bytes, end + 1, seconds);
  }
  if (nanos !== 0) {
    bytes[end] = tag.nanos;
    end = writeVarint(bytes, end + 1, nanos);
  }
  bytes[at + 1] = end - at - 2;
  return end;
}

function writeVarint(bytes: Buffer, at: number, value: number): number {
  let rest = value;
  let end = at;
  while (rest >= 0x80) {
    bytes[end++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  bytes[end++] = rest;
  return end;
}

/** A negative number, of a time before 1970, is written as its two's complement in ten bytes. */
function writeInt64(bytes: Buffer, at: number, value: number): number {
  if (value >= 0) return writeVarint(bytes, at, value);
  let rest = BigInt.asUintN(64, BigInt(value));
  let end = at;
  while (rest >= 0x80n) {
    bytes[end++] = Number(rest & 0x7fn) | 0x80;
    rest >>= 7n;
  }
  bytes[end++] = Number(rest);
  return end;
}

function varintSize(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : value < 0x1000_0000 ? 4 : 5;
}

/** The number at a place of our own encoding, and where it ends. */
function readVarint(bytes: Buffer, at: number): readonly [value: number, end: number] {
  let value = 0;
  for (let i = 0; ; i++) {
    const byte = bytes[at + i] ?? 0;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return [value, at + i + 1];
  }
}

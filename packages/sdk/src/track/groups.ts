/** The form in which a spool keeps events: groups, each with a header and a checksum, one behind the other. */
import { crc32 } from "node:zlib";
import { type Batch, FULL_BATCH_BYTES, MAX_BATCH_EVENTS } from "./encode.ts";

/** Length, number of events, checksum; 32 bits each, big-endian. */
const HEADER_BYTES = 12;
/** No group has more: the largest is one event over a full batch, and an event has at most 32 KiB. */
export const MAX_GROUP_BYTES: number = HEADER_BYTES + FULL_BATCH_BYTES + 32 * 1024;
/** So many places that look like a group are tried behind a damaged one; each costs a checksum. */
const MAX_TRIES = 10_000;

/** What was found in bytes that may be damaged. */
export interface Found {
  /** The whole groups as they are, neighbours in one piece. */
  readonly groups: readonly Buffer[];
  /** How many events are in them. */
  readonly events: number;
  /** How many events can't be read; 0 also where that can't be told. Undefined: nothing is damaged. */
  readonly lost: number | undefined;
}

/** A batch as a group. */
export function toGroup({ body, count }: Batch): Buffer {
  const group = Buffer.concat([Buffer.alloc(HEADER_BYTES), body]);
  group.writeUInt32BE(body.length, 0);
  group.writeUInt32BE(count, 4);
  group.writeUInt32BE(checksum(group), 8);
  return group;
}

/** The whole groups at the beginning of some bytes, as many as have together no more events and bytes than a request. */
export function readGroups(bytes: Buffer, maxEvents: number): { bodies: Buffer[]; bytes: number; events: number } {
  const bodies: Buffer[] = [];
  let [end, events, size] = [0, 0, 0];
  for (let group = wholeAt(bytes, end); group !== undefined; group = wholeAt(bytes, end)) {
    const body = group.subarray(HEADER_BYTES);
    const count = group.readUInt32BE(4);
    const fits = events + count <= maxEvents && size + body.length <= FULL_BATCH_BYTES;
    if (bodies.length > 0 && !fits) break;
    bodies.push(body);
    end += group.length;
    events += count;
    size += body.length;
  }
  return { bodies, bytes: end, events };
}

/**
 * All whole groups, also those behind damaged ones. What a crash left of the last one, cut short or not written at all, is
 * no damage: it was never said to be durable.
 */
export function findGroups(bytes: Buffer): Found {
  const groups: Buffer[] = [];
  let [at, events] = [0, 0];
  let lost: number | undefined;
  while (at < bytes.length) {
    const whole = readGroups(bytes.subarray(at), Number.POSITIVE_INFINITY);
    if (whole.bytes > 0) {
      groups.push(bytes.subarray(at, at + whole.bytes));
      at += whole.bytes;
      events += whole.events;
      continue;
    }
    const next = nextWhole(bytes, at + 1);
    if (next === undefined && isTorn(bytes.subarray(at))) break;
    const end = next ?? bytes.length;
    lost = (lost ?? 0) + countIn(bytes.subarray(at, end));
    at = end;
  }
  return { groups, events, lost };
}

/** The length that the header at a place tells, header included; undefined where no header can be. */
function lengthAt(bytes: Buffer, at: number): number | undefined {
  if (at + HEADER_BYTES > bytes.length) return undefined;
  const length = HEADER_BYTES + bytes.readUInt32BE(at);
  const count = bytes.readUInt32BE(at + 4);
  return count > 0 && count <= MAX_BATCH_EVENTS && count < length && length <= MAX_GROUP_BYTES ? length : undefined;
}

function wholeAt(bytes: Buffer, at: number): Buffer | undefined {
  const length = lengthAt(bytes, at);
  if (length === undefined || at + length > bytes.length) return undefined;
  const group = bytes.subarray(at, at + length);
  return checksum(group) === group.readUInt32BE(8) ? group : undefined;
}

/** Where the next whole group begins: the length in a damaged header may be wrong, so every place is looked at. */
function nextWhole(bytes: Buffer, from: number): number | undefined {
  let tries = 0;
  for (let at = from; at + HEADER_BYTES <= bytes.length && tries < MAX_TRIES; at++) {
    const length = lengthAt(bytes, at);
    if (length === undefined || at + length > bytes.length) continue;
    if (wholeAt(bytes, at) !== undefined) return at;
    tries += 1;
  }
  return undefined;
}

/** Whether a crash can have left this of a group: less than its length, or room whose header was never written. */
function isTorn(rest: Buffer): boolean {
  if (rest.length < HEADER_BYTES || rest.subarray(0, HEADER_BYTES).every((byte) => byte === 0)) return true;
  return (lengthAt(rest, 0) ?? 0) > rest.length;
}

/** How many events the headers of damaged groups tell; 0 where they don't fit to where the groups end. */
function countIn(damaged: Buffer): number {
  let [at, events] = [0, 0];
  while (at < damaged.length) {
    const length = lengthAt(damaged, at);
    if (length === undefined) return 0;
    events += damaged.readUInt32BE(at + 4);
    at += length;
  }
  return at === damaged.length ? events : 0;
}

/** Of everything in a group but the checksum itself. */
function checksum(group: Buffer): number {
  return crc32(group.subarray(HEADER_BYTES), crc32(group.subarray(0, 8)));
}

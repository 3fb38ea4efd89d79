// What a `HandDecoder` is made of: readers of requests as clients write them, with lengths in the fewest bytes and texts of
// ASCII. For what they do not know they return undefined, and the generated code says what it is.

/** The longest code, in characters. */
const MAX_CODE = 63;
/** A varint of so many bytes is exact as a number. */
const MAX_VARINT_BYTES = 7;

/** The tags of a map entry's fields. */
const KEY = 0x0a;
const VALUE = 0x12;

/** By byte, whether a code may begin with it (2), or only go on (1). */
const codeBytes = new Uint8Array(256);
for (const byte of Buffer.from("abcdefghijklmnopqrstuvwxyz0123456789")) codeBytes[byte] = 2;
for (const byte of Buffer.from("_.-")) codeBytes[byte] = 1;

/** Where the value begins whose length is at `at`. */
export function startOf(bytes: Buffer, at: number): number {
  return at + ((bytes[at] ?? 0) < 0x80 ? 1 : 2);
}

/** A length of one byte or two, in the fewest; NaN, which compares with nothing, for any other. */
export function lengthAt(bytes: Buffer, at: number): number {
  const low = bytes[at];
  if (low === undefined) return Number.NaN;
  if (low < 0x80) return low;
  const high = bytes[at + 1];
  return high === undefined || high === 0 || high >= 0x80 ? Number.NaN : (low & 0x7f) | (high << 7);
}

/** A text of ASCII without U+0000, of `least` to `most` characters; undefined for any other. */
export function readText(bytes: Buffer, start: number, end: number, least: number, most: number): string | undefined {
  const length = end - start;
  if (length < least || length > most) return undefined;
  for (let at = start; at < end; at++) {
    const byte = bytes[at] as number;
    if (byte === 0 || byte >= 0x80) return undefined;
  }
  return toText(bytes, start, end);
}

/** A code: `^[a-z0-9][a-z0-9_.-]{0,62}$`. */
export function readCode(bytes: Buffer, start: number, end: number): string | undefined {
  if (end - start > MAX_CODE || codeBytes[bytes[start] as number] !== 2 || end === start) return undefined;
  for (let at = start + 1; at < end; at++) {
    if (codeBytes[bytes[at] as number] === 0) return undefined;
  }
  return toText(bytes, start, end);
}

/**
 * Reads an entry of a map of texts, key first, into it; false where it is another one, or its key is there.
 *
 * @param most the longest key, which may not be empty, and the longest value, in characters.
 */
export function readEntry(
  bytes: Buffer,
  start: number,
  end: number,
  map: Record<string, string>,
  most: { readonly key: number; readonly value: number },
): boolean {
  if (bytes[start] !== KEY) return false;
  const keyStart = startOf(bytes, start + 1);
  const keyEnd = keyStart + lengthAt(bytes, start + 1);
  if (!(keyEnd < end) || bytes[keyEnd] !== VALUE) return false;
  const valueStart = startOf(bytes, keyEnd + 1);
  if (valueStart + lengthAt(bytes, keyEnd + 1) !== end) return false;
  const key = readText(bytes, keyStart, keyEnd, 1, most.key);
  const value = readText(bytes, valueStart, end, 0, most.value);
  // Of these names objects have something already.
  if (key === undefined || value === undefined || key in map) return false;
  map[key] = value;
  return true;
}

/** A positive number that takes all the bytes from `start` to `end`, in the fewest. */
export function readVarint(bytes: Buffer, start: number, end: number): number | undefined {
  const length = end - start;
  if (length < 1 || length > MAX_VARINT_BYTES) return undefined;
  let value = 0;
  for (let at = end - 1; at >= start; at--) {
    const byte = bytes[at] as number;
    if (at === end - 1 ? byte === 0 || byte >= 0x80 : byte < 0x80) return undefined;
    value = value * 0x80 + (byte & 0x7f);
  }
  return value;
}

function toText(bytes: Buffer, start: number, end: number): string {
  return bytes.toString("latin1", start, end);
}

/** The same bytes as a Buffer, whose texts are made by native code. */
export function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Types of elements, by their OID in `pg_type`. */
const OIDS = { bytea: 17, text: 25, jsonb: 3802 } as const;

/** Dimensions, whether there are nulls, the type of the elements, their number, the index of the first: 4 bytes each. */
const HEADER_BYTES = 20;
/** Before each element its length. */
const LENGTH_BYTES = 4;
/** The version of the format that begins a value of jsonb. */
const JSONB_VERSION = 1;

/**
 * An array as a parameter in the binary format of Postgres, which `pg` sends as it is. An array of JavaScript it would send
 * as text, with each element escaped and bytes in hex, and that takes both sides several times as long. The statement must
 * give the parameter exactly this type.
 *
 * @param items texts, of jsonb as JSON; and bytes for bytea.
 */
export function binaryArray(type: "bytea", items: readonly Uint8Array[]): Buffer;
export function binaryArray(type: "text" | "jsonb", items: readonly string[]): Buffer;
export function binaryArray(type: keyof typeof OIDS, items: readonly (string | Uint8Array)[]): Buffer {
  const prefix = type === "jsonb" ? 1 : 0;
  const lengths = items.map((item) => prefix + Buffer.byteLength(item));
  const total = lengths.reduce((sum, length) => sum + LENGTH_BYTES + length, HEADER_BYTES);
  const array = Buffer.allocUnsafe(total);
  let at = 0;
  for (const number of [1, 0, OIDS[type], items.length, 1]) at = array.writeInt32BE(number, at);
  for (const [index, item] of items.entries()) {
    at = array.writeInt32BE(lengths[index] ?? 0, at);
    if (type === "jsonb") at = array.writeUInt8(JSONB_VERSION, at);
    if (typeof item === "string") at += array.write(item, at);
    else {
      array.set(item, at);
      at += item.length;
    }
  }
  return array;
}

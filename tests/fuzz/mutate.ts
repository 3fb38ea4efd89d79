import { below, noise, pick } from "./attack.ts";

/** Changes the bytes of a message. */
type Mutation = (bytes: Buffer, random: () => number) => Buffer;

/** The largest request that a mutation makes, in bytes: beyond the limit of methods, and no more. */
const MAX_BYTES = 80_000;

const mutations: Readonly<Record<string, Mutation>> = {
  flipBit(bytes, random) {
    const changed = Buffer.from(bytes);
    if (changed.length > 0) {
      const at = below(random, changed.length);
      changed[at] = (changed[at] ?? 0) ^ (1 << below(random, 8));
    }
    return changed;
  },
  truncate: (bytes, random) => bytes.subarray(0, below(random, bytes.length + 1)),
  insert(bytes, random) {
    const at = below(random, bytes.length + 1);
    return Buffer.concat([bytes.subarray(0, at), noise(random, 1 + below(random, 20)), bytes.subarray(at)]);
  },
  /** A byte becomes the longest there is: where it was a length, what follows is too short. */
  lie(bytes, random) {
    const changed = Buffer.from(bytes);
    if (changed.length > 0) changed[below(random, changed.length)] = pick(random, [0x7f, 0xff, 0x80, 0]);
    return changed;
  },
  repeat: (bytes, random) => Buffer.concat(Array.from({ length: 2 + below(random, 50) }, () => bytes)),
  unknownField: (bytes, random) =>
    Buffer.concat([bytes, field(1_000 + below(random, 10_000), 2), varint(40), noise(random, 40)]),
  hugeFieldNumber: (bytes) => Buffer.concat([bytes, field(536_870_911, 0), varint(1)]),
  fieldZero: (bytes) => Buffer.concat([bytes, field(0, 0), varint(1)]),
  wrongWireType: (bytes, random) =>
    Buffer.concat([bytes, field(1 + below(random, 12), below(random, 8)), noise(random, 12)]),
  endlessVarint: (bytes, random) =>
    Buffer.concat([bytes, field(1 + below(random, 12), 0), Buffer.alloc(5 + below(random, 20), 0xff)]),
  overlongLength: (bytes, random) =>
    Buffer.concat([bytes, field(1 + below(random, 12), 2), Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f])]),
  /** Numbers that no enum has, and no 32 bits. */
  unknownEnum(bytes, random) {
    const minusOne = Buffer.from("ffffffffffffffffff01", "hex");
    const value = pick(random, [varint(99), varint(2 ** 31 - 1), varint(2 ** 31), varint(2 ** 53 - 1), minusOne]);
    return Buffer.concat([bytes, field(1 + below(random, 12), 0), value]);
  },
  /** Messages in messages, as deep as fits. */
  nest(bytes, random) {
    let nested = bytes;
    const number = 1 + below(random, 12);
    const depth = pick(random, [10, 99, 100, 101, 1_000, 5_000]);
    for (let i = 0; i < depth && nested.length < MAX_BYTES; i++) {
      nested = Buffer.concat([field(number, 2), varint(nested.length), nested]);
    }
    return nested;
  },
  /** Groups in groups: a parser that recurses into them runs out of stack. */
  groups(bytes, random) {
    const number = 1 + below(random, 2_000);
    const depth = pick(random, [10, 101, 1_000, 20_000]);
    const start = Buffer.concat(Array.from({ length: depth }, () => field(number, 3)));
    return Buffer.concat([bytes, start.subarray(0, MAX_BYTES)]);
  },
  /** Entries of a map, thousands of them, with the same key, or with keys that objects have already. */
  hugeMap(bytes, random) {
    const number = field(1 + below(random, 12), 2);
    const names = ["__proto__", "constructor", "toString", "hasOwnProperty", "a", ""];
    const entries = Array.from({ length: 3_000 }, () => {
      const key = Buffer.from(pick(random, names));
      const entry = Buffer.concat([field(1, 2), varint(key.length), key, field(2, 2), varint(1), Buffer.from("x")]);
      return Buffer.concat([number, varint(entry.length), entry]);
    });
    return Buffer.concat([bytes, ...entries]).subarray(0, MAX_BYTES);
  },
  badText(bytes, random) {
    const texts = ["\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\x00", "\xf4\x90\x80\x80"];
    const text = Buffer.from(pick(random, texts), "latin1");
    return Buffer.concat([bytes, field(1 + below(random, 12), 2), varint(text.length), text]);
  },
  longText(bytes, random) {
    const text = Buffer.alloc(below(random, 60_000), pick(random, ["a", "\u{1f600}", "'", "%s", "../"]));
    return Buffer.concat([bytes, field(1 + below(random, 12), 2), varint(text.length), text]);
  },
};

const names = Object.keys(mutations);

/** Changes a message in one to three ways; `how` names them. */
export function mutate(bytes: Uint8Array, random: () => number): { readonly bytes: Buffer; readonly how: string } {
  const chosen = Array.from({ length: 1 + below(random, 3) }, () => pick(random, names));
  const changed = chosen.reduce<Buffer>((last, name) => mutations[name]?.(last, random) ?? last, Buffer.from(bytes));
  return { bytes: changed, how: chosen.join("+") };
}

/** The key of a field in protobuf's wire format. */
export function field(number: number, wireType: number): Buffer {
  return varint(number * 8 + wireType);
}

/** A whole number that is not negative, in protobuf's wire format. */
export function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

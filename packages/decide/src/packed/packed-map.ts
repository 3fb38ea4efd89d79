import { Reader, Writer } from "./bytes.ts";
import { createSlab } from "./slab.ts";

/** How values of one kind become bytes and values again. */
export interface Codec<V> {
  write(value: V, to: Writer): void;
  /** The value as it was written; what its key tells need not be in the bytes. */
  read(from: Reader, key: string): V;
  /** Told once of what was written and is gone, at the place where it began. */
  release(from: Reader): void;
}

/** A map whose values lie as bytes outside of the garbage collector's sight. */
export interface PackedMap<V> {
  /**
   * The value of a key, which counts as used. While it is asked for often the same object is returned, until the key is
   * set anew.
   */
  get(key: string): V | undefined;
  /** The value of a key without any effect on what counts as used; made anew where nobody has asked for it lately. */
  peek(key: string): V | undefined;
  has(key: string): boolean;
  set(key: string, value: V): void;
  delete(key: string): void;
  /** Whether a key was used since this was last asked about it. */
  spare(key: string): boolean;
  /** All keys from then on, in the order in which they came; goes on while keys come and go. */
  keys(): IterableIterator<string>;
  readonly size: number;
}

/** A value as an object, and where the byte is that says whether it was used. */
interface Made<V> {
  readonly value: V;
  readonly bytes: Uint8Array;
  readonly offset: number;
}

const NOT_USED = 0;
const USED = 1;

/**
 * Creates an empty map.
 *
 * @param maxMade how many values are kept as objects beside their bytes: those asked for last. At most twice as many are.
 */
export function createPackedMap<V>(codec: Codec<V>, maxMade: number): PackedMap<V> {
  const places = new Map<string, number>();
  const slab = createSlab();
  const made = createRecent<Made<V>>(maxMade);
  const writer = new Writer();
  const reader = new Reader();

  const readAt = (place: number): Reader => {
    const { bytes, view, offset } = slab.locate(place);
    reader.begin(bytes, view, offset + 1);
    return reader;
  };
  const mark = (place: number, mark: number): number => {
    const { bytes, offset } = slab.locate(place);
    const before = bytes[offset] ?? NOT_USED;
    if (before !== mark) bytes[offset] = mark;
    return before;
  };
  const drop = (key: string, place: number): void => {
    made.delete(key);
    codec.release(readAt(place));
    slab.free(place);
  };

  return {
    get(key) {
      const known = made.get(key);
      if (known !== undefined) {
        known.bytes[known.offset] = USED;
        return known.value;
      }
      const place = places.get(key);
      if (place === undefined) return undefined;
      mark(place, USED);
      const value = codec.read(readAt(place), key);
      const { bytes, offset } = slab.locate(place);
      made.set(key, { value, bytes, offset });
      return value;
    },
    peek(key) {
      const place = places.get(key);
      return place === undefined ? undefined : (made.get(key)?.value ?? codec.read(readAt(place), key));
    },
    has: (key) => places.has(key),
    set(key, value) {
      writer.begin();
      const before = places.get(key);
      writer.byte(before === undefined ? NOT_USED : mark(before, NOT_USED));
      // Before the old one is released: terms that both have stay.
      codec.write(value, writer);
      if (before !== undefined) drop(key, before);
      places.set(before === undefined ? flat(key) : key, slab.put(writer.bytes, writer.length));
    },
    delete(key) {
      const place = places.get(key);
      if (place === undefined) return;
      drop(key, place);
      places.delete(key);
    },
    spare(key) {
      const place = places.get(key);
      return place !== undefined && mark(place, NOT_USED) === USED;
    },
    keys: () => places.keys(),
    get size() {
      return places.size;
    },
  };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** The same text in one piece: one that was put together of several keeps them all. */
function flat(text: string): string {
  return decoder.decode(encoder.encode(text));
}

/** Keeps what was set or got last: at least `max` of them, at most twice as many. A hit costs one look, no reordering. */
function createRecent<T>(max: number) {
  let young = new Map<string, T>();
  let old = new Map<string, T>();
  const set = (key: string, value: T): void => {
    if (young.size >= max) {
      old = young;
      young = new Map();
    }
    young.set(key, value);
  };
  return {
    set,
    get(key: string): T | undefined {
      const value = young.get(key);
      if (value !== undefined) return value;
      const aged = old.get(key);
      if (aged !== undefined) set(key, aged);
      return aged;
    },
    delete(key: string): void {
      young.delete(key);
      old.delete(key);
    },
  };
}

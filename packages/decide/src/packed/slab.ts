/** Slots lie in chunks of this size. */
const CHUNK_BYTES = 64 * 1024;
/** Places count in units of this many bytes, so that 2^31 of them reach 16 GiB. */
const UNIT_BYTES = 8;
const UNITS_PER_CHUNK = CHUNK_BYTES / UNIT_BYTES;
/** What is longer has a chunk of its own. */
const MAX_SLOT_BYTES = 4 * 1024;
/** Up to here slots are whole units; beyond, there are eight sizes between two powers of two: an eighth is lost at most. */
const MAX_FINE_SLOT_BYTES = 128;
/** In place of the next free slot: there is none. */
const NONE = 0xffff_ffff;

/** Where the bytes of one place are. */
export interface Located {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly offset: number;
}

/**
 * Many small runs of bytes outside of the garbage collector's sight: to it a million of them are a thousand buffers.
 * Runs of about one length share buffers, and what one leaves the next takes, so that memory follows what is kept.
 */
export interface Slab {
  /** Copies `length` bytes in, and returns their place: a whole number below 2^31, which engines keep without an object. */
  put(bytes: Uint8Array, length: number): number;
  /** Where the bytes of a place are; until the place is freed. */
  locate(place: number): Located;
  /** Gives a place back. It must not be used any more. */
  free(place: number): void;
  /** How many bytes are allocated. */
  readonly allocatedBytes: number;
}

/** Slots of one size. */
interface Chunk {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly slotBytes: number;
  /** Slots that hold something. */
  used: number;
  /** Where no slot has been taken yet. */
  unused: number;
  /** The offset of the first slot that was given back; each of them begins with the offset of the next. */
  freed: number;
}

/** Creates a slab with nothing in it. */
export function createSlab(): Slab {
  const chunks: (Chunk | undefined)[] = [];
  const emptyIndexes: number[] = [];
  // By the size of their slots, the chunks in which one is free.
  const roomy = new Map<number, Set<number>>();
  let allocatedBytes = 0;

  const addChunk = (slotBytes: number): number => {
    const bytes = new Uint8Array(Math.max(slotBytes, CHUNK_BYTES - (CHUNK_BYTES % slotBytes)));
    const chunk = { bytes, view: new DataView(bytes.buffer), slotBytes, used: 0, unused: 0, freed: NONE };
    const index = emptyIndexes.pop() ?? chunks.length;
    chunks[index] = chunk;
    allocatedBytes += bytes.length;
    return index;
  };
  const roomFor = (slotBytes: number): number => {
    const indexes = roomy.get(slotBytes) ?? new Set();
    roomy.set(slotBytes, indexes);
    for (const index of indexes) return index;
    const index = addChunk(slotBytes);
    indexes.add(index);
    return index;
  };
  const chunkAt = (index: number): Chunk => {
    const chunk = chunks[index];
    if (chunk === undefined) throw new RangeError(`chunk ${index} is not allocated: its places were freed`);
    return chunk;
  };

  return {
    put(bytes, length) {
      const slotBytes = slotBytesFor(length);
      const index = roomFor(slotBytes);
      const chunk = chunkAt(index);
      const offset = takeSlot(chunk);
      if (!hasRoom(chunk)) roomy.get(slotBytes)?.delete(index);
      // A loop beats the call of a native for so few bytes.
      for (let at = 0; at < length; at++) chunk.bytes[offset + at] = bytes[at] ?? 0;
      return index * UNITS_PER_CHUNK + offset / UNIT_BYTES;
    },
    locate(place) {
      const index = Math.floor(place / UNITS_PER_CHUNK);
      const { bytes, view } = chunkAt(index);
      return { bytes, view, offset: (place - index * UNITS_PER_CHUNK) * UNIT_BYTES };
    },
    free(place) {
      const index = Math.floor(place / UNITS_PER_CHUNK);
      const chunk = chunkAt(index);
      const offset = (place - index * UNITS_PER_CHUNK) * UNIT_BYTES;
      chunk.view.setUint32(offset, chunk.freed);
      chunk.freed = offset;
      chunk.used--;
      if (chunk.used > 0) {
        roomy.get(chunk.slotBytes)?.add(index);
        return;
      }
      roomy.get(chunk.slotBytes)?.delete(index);
      chunks[index] = undefined;
      emptyIndexes.push(index);
      allocatedBytes -= chunk.bytes.length;
    },
    get allocatedBytes() {
      return allocatedBytes;
    },
  };
}

function slotBytesFor(length: number): number {
  if (length <= MAX_FINE_SLOT_BYTES) return Math.max(1, Math.ceil(length / UNIT_BYTES)) * UNIT_BYTES;
  const step = 2 ** (Math.ceil(Math.log2(length)) - 4);
  return Math.ceil(length / Math.min(step, MAX_SLOT_BYTES / 16)) * Math.min(step, MAX_SLOT_BYTES / 16);
}

function hasRoom({ freed, unused, slotBytes, bytes }: Chunk): boolean {
  return freed !== NONE || unused + slotBytes <= bytes.length;
}

function takeSlot(chunk: Chunk): number {
  chunk.used++;
  const { freed } = chunk;
  if (freed !== NONE) {
    chunk.freed = chunk.view.getUint32(freed);
    return freed;
  }
  const { unused } = chunk;
  chunk.unused += chunk.slotBytes;
  return unused;
}

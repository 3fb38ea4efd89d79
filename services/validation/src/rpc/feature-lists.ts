import { readFeatures } from "./hand-decoder.ts";
import { createMemo } from "./memo.ts";

/** The most memory that the lists take up, in bytes, about. */
const MAX_LIST_BYTES = 8 * 1024 * 1024;
/** What a feature's code takes up beside its characters, in bytes, about: twice, encoded and decoded. */
const OVERHEAD_BYTES = 60;

/** The features that a request asks about. */
export interface FeatureList {
  /** Not used by another list, not even by one that was dropped. */
  readonly id: number;
  readonly features: readonly string[];
}

/** Lists of features by their encoding: callers ask about the same ones again and again, for each customer. */
export interface FeatureLists {
  /** The list that the bytes from `start` on encode; undefined where they are anything else as well. */
  of(bytes: Buffer, start: number): FeatureList | undefined;
}

/** Starts with none. */
export function createFeatureLists(): FeatureLists {
  const known = createMemo<FeatureList>(MAX_LIST_BYTES);
  let last = 0;
  return {
    of(bytes, start) {
      const encoded = bytes.toString("latin1", start);
      const present = known.get(encoded);
      if (present !== undefined) return present;
      const features = readFeatures(bytes, start);
      if (features === undefined) return undefined;
      last += 1;
      const list = { id: last, features };
      known.set(encoded, list, 2 * encoded.length + OVERHEAD_BYTES * features.length);
      return list;
    },
  };
}

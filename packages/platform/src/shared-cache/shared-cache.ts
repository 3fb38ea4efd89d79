/** A value as its owner told it. */
export interface SharedValue {
  /** Rises with every change of the value; not negative. */
  readonly version: bigint;
  /** When it was read, in whole epoch milliseconds of the owner's clock: all that was committed before is in it. */
  readonly readAtMs: number;
  readonly bytes: Uint8Array;
}

/**
 * A cache that the replicas of a service share, between their memory and the owner of the values. It may forget and be
 * away at any time: that costs its users latency, and never an error. `testing/shared-cache-conformance.ts` is the exact
 * statement of what an implementation does.
 */
export interface SharedCache {
  /** The value of a key; undefined when it is not there, is damaged, or can't be had in time. Never rejects. */
  get(key: string): Promise<SharedValue | undefined>;
  /**
   * Keeps a value, unless one of a higher version is there, or one of the same version that was read later. Resolves
   * whether it could or not; never rejects.
   */
  put(key: string, value: SharedValue): Promise<void>;
  /** Closes the connections. */
  stop(): Promise<void>;
}

/** The shared cache of a service that has none: it keeps nothing. */
export const noSharedCache: SharedCache = {
  get: async () => undefined,
  put: async () => undefined,
  stop: async () => undefined,
};

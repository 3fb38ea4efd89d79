/** A license key that was issued here, and whose. */
export interface ProvedKey {
  readonly tenantId: string;
  readonly keyId: string;
}

/** Keys that were looked up lately; more would be memory for little. */
const MAX_KEYS = 20_000;

/** Which key is whose, by what finds it; see {@link createKnownKeys}. */
export interface KnownKeys {
  find(hash: Uint8Array): ProvedKey | undefined;
  add(hash: Uint8Array, key: ProvedKey): void;
}

/**
 * Remembers whose the keys are that were presented lately, so that a product that asks often is not looked up each time.
 * That never changes: keys are kept for good, and not given to another customer. Whether a key is in force does change,
 * and is read each time. Nothing is remembered of keys that are unknown. What was found longest ago goes first.
 */
export function createKnownKeys(): KnownKeys {
  const known = new Map<string, ProvedKey>();
  const nameOf = (hash: Uint8Array) => Buffer.from(hash).toString("base64");
  return {
    find: (hash) => known.get(nameOf(hash)),
    add(hash, key) {
      const [oldest] = known.keys();
      if (known.size >= MAX_KEYS && oldest !== undefined) known.delete(oldest);
      known.set(nameOf(hash), key);
    },
  };
}

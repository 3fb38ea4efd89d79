/**
 * Where a replica keeps its values: by key, and with each whether it was used. `testing/replica-store-conformance.ts` is
 * the exact statement of what an implementation does.
 */
export interface ReplicaStore<V> {
  /** The value of a key, which counts as used from now on. */
  get(key: string): V | undefined;
  /** The value of a key, without any effect on what counts as used. */
  peek(key: string): V | undefined;
  has(key: string): boolean;
  /** Sets a value. A new key counts as not used, another one as before. */
  set(key: string, value: V): void;
  delete(key: string): void;
  /** Whether a key was used since this was last asked about it. */
  spare(key: string): boolean;
  /** The keys, oldest first; goes on, with the keys that come meanwhile, while others go. */
  keys(): IterableIterator<string>;
  /** How many values there are. */
  readonly size: number;
}

/** Keeps the values themselves, in a map. */
export function createPlainStore<V>(): ReplicaStore<V> {
  const entries = new Map<string, { value: V; used: boolean }>();
  return {
    get(key) {
      const entry = entries.get(key);
      if (entry === undefined) return undefined;
      entry.used = true;
      return entry.value;
    },
    peek: (key) => entries.get(key)?.value,
    has: (key) => entries.has(key),
    set(key, value) {
      const entry = entries.get(key);
      if (entry === undefined) entries.set(key, { value, used: false });
      else entry.value = value;
    },
    delete: (key) => void entries.delete(key),
    spare(key) {
      const entry = entries.get(key);
      const used = entry?.used === true;
      if (entry !== undefined) entry.used = false;
      return used;
    },
    keys: () => entries.keys(),
    get size() {
      return entries.size;
    },
  };
}

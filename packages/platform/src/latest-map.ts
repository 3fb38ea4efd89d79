/**
 * A map that knows which key was set the longest ago, and can drop it at the same cost however many it has dropped. (A map's
 * own first key costs a walk over all that were deleted before it and whose places it still holds.)
 */
export class LatestMap<V> {
  readonly #values = new Map<string, V>();
  /** Everything before it was dropped. Made when first needed: until it moves on it holds what the map held then. */
  #oldest: IterableIterator<string> | undefined;

  get size(): number {
    return this.#values.size;
  }

  get(key: string): V | undefined {
    return this.#values.get(key);
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  /** Sets a value; its key is the latest from now on. */
  set(key: string, value: V): void {
    this.#values.delete(key);
    this.#values.set(key, value);
  }

  delete(key: string): void {
    this.#values.delete(key);
  }

  /** Takes out what was set the longest ago; undefined when there is nothing. */
  dropOldest(): { readonly key: string; readonly value: V } | undefined {
    this.#oldest ??= this.#values.keys();
    const { value: key, done } = this.#oldest.next();
    if (done) {
      // One that has come to the end stays there.
      this.#oldest = undefined;
      return this.#values.size > 0 ? this.dropOldest() : undefined;
    }
    const value = this.#values.get(key) as V;
    this.#values.delete(key);
    return { key, value };
  }
}

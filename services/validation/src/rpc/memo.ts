import { LatestMap } from "@licet/platform/latest-map";

/** What was worked out once, by key, with a bound on what all of it weighs; beyond it the oldest goes. */
export interface Memo<V> {
  get(key: string): V | undefined;
  set(key: string, value: V, weight: number): void;
}

/** Starts empty. A weight is about the bytes that key and value take up. */
export function createMemo<V>(maxWeight: number): Memo<V> {
  const values = new LatestMap<{ readonly value: V; readonly weight: number }>();
  let total = 0;
  return {
    get: (key) => values.get(key)?.value,
    set(key, value, weight) {
      total += weight - (values.get(key)?.weight ?? 0);
      values.set(key, { value, weight });
      while (total > maxWeight) total -= values.dropOldest()?.value.weight ?? total;
    },
  };
}

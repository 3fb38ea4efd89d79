/** Draws ranks from 0 to `count` - 1, rank r as often as 1 / (r + 1)^exponent says. */
export interface Zipf {
  /** @param random from 0 to 1, without 1. */
  draw(random: number): number;
  /** The share of all draws that the first ranks take. */
  shareOf(ranks: number): number;
}

/** Tabulates the distribution: exact, and a search of log2(count) steps a draw. */
export function createZipf(count: number, exponent: number): Zipf {
  const sums = new Float64Array(count);
  let sum = 0;
  for (let rank = 0; rank < count; rank++) {
    sum += 1 / (rank + 1) ** exponent;
    sums[rank] = sum;
  }
  return {
    draw(random) {
      const wanted = random * sum;
      let low = 0;
      let high = count - 1;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((sums[middle] ?? sum) > wanted) high = middle;
        else low = middle + 1;
      }
      return low;
    },
    shareOf: (ranks) => (ranks <= 0 ? 0 : (sums[Math.min(ranks, count) - 1] ?? sum) / sum),
  };
}

/** Numbers from 0 to 1, without 1; the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

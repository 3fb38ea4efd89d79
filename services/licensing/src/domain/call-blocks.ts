/** The most calls that a replica takes for a key at once. */
export const MAX_BLOCK = 64;

/** A block is at most one in so many of the calls that are left, so that near the end blocks are small and the last calls are taken one by one. */
const SHARE = 8;

const DAY_MS = 86_400_000;

/** What decides how many calls a replica takes. */
export interface BlockFacts {
  /** The calls that a key may make in a day. */
  readonly limit: number;
  /** What all replicas have taken of them. */
  readonly taken: number;
  /** How many this replica would take for calls to come. */
  readonly wanted: number;
  /** How many calls wait for it now. */
  readonly waiting: number;
}

/**
 * How many calls of the day a replica takes at once. All that wait are served if there are as many; for calls to come it
 * takes little of what is left, because what it holds the others can't have.
 */
export function blockOf({ limit, taken, wanted, waiting }: BlockFacts): number {
  const left = Math.max(0, limit - taken);
  const ahead = Math.min(wanted, MAX_BLOCK, Math.ceil(left / SHARE));
  return Math.min(left, Math.max(waiting, ahead));
}

/** The day in UTC, as `2026-11-25`. */
export function dayOf(now: Date): string {
  return now.toISOString().slice(0, 10);
}

/** How long the day in UTC still lasts, in milliseconds. */
export function dayEndsIn(now: Date): number {
  return DAY_MS - (now.getTime() % DAY_MS);
}

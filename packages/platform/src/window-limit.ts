import type { Allowance } from "./rpc/rate-limit.ts";

/** What {@link createWindowLimit} needs. */
export interface WindowLimitOptions {
  /** How many of one caller are let through in a window. */
  readonly max: number;
  readonly windowMs: number;
  /** Callers that are told apart in a window; all further ones count as one. */
  readonly maxCallers: number;
  /** The clock, in epoch milliseconds. */
  readonly now: () => number;
}

/** Counts what callers do in fixed windows of time, in this process. */
export interface WindowLimit {
  /** Counts one more of a caller, unless it has done as many as it may; says whether it was counted, and what is left. */
  take(caller: string): Allowance & { readonly taken: boolean };
  /** Takes back one that was counted in the window that runs. */
  giveBack(caller: string): void;
}

/** The name of all callers beyond those that are told apart; no caller is called so. */
const OTHERS = "\0others";

/** Starts with nothing counted. A new window forgets all callers at once, so that what is kept is bounded in time too. */
export function createWindowLimit({ max, windowMs, maxCallers, now }: WindowLimitOptions): WindowLimit {
  let counts = new Map<string, number>();
  let window = Number.NaN;
  const countsNow = (): Map<string, number> => {
    const current = Math.floor(now() / windowMs);
    if (current !== window) counts = new Map();
    window = current;
    return counts;
  };
  const nameOf = (caller: string): string => (counts.has(caller) || counts.size < maxCallers ? caller : OTHERS);

  return {
    take(caller) {
      const running = countsNow();
      const name = nameOf(caller);
      const count = running.get(name) ?? 0;
      const taken = count < max;
      if (taken) running.set(name, count + 1);
      return {
        taken,
        limit: max,
        remaining: Math.max(0, max - count - 1),
        resetMs: (window + 1) * windowMs - now(),
      };
    },
    giveBack(caller) {
      const running = countsNow();
      const name = nameOf(caller);
      const count = running.get(name) ?? 0;
      if (count > 0) running.set(name, count - 1);
    },
  };
}

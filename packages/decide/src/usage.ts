import { Big } from "big.js";
import type { CountedWindow, License, LimitWindow, Usage, UsageLevel, UsageLevels } from "./entitlement.ts";

const dayMs = 86_400_000;

/** What counts against a limit, and until when. */
export interface UsedSoFar {
  /** A decimal without exponent. */
  readonly used: string;
  /** The first moment at which less of it may count, because a window is over; undefined: it counts for ever. */
  readonly untilMs: number | undefined;
}

const unused: UsedSoFar = { used: "0", untilMs: undefined };

/** Whether the use in a window is counted; what a gauge or a rate stands at is known to the caller only. */
export function isCounted(window: LimitWindow): window is CountedWindow {
  return window !== "GAUGE" && window !== "PER_SECOND";
}

/**
 * What counts against the limits of a license: all that was used in the window and names the license or none. A window that
 * is over counts nothing. One that begins later than `nowMs` does count: usage metering's clock is ahead of ours.
 */
export function usedSoFar(
  levels: UsageLevels,
  { id }: License,
  metric: string,
  window: CountedWindow,
  nowMs: number,
): UsedSoFar {
  const counters = levels.get(metric);
  if (counters === undefined) return unused;
  let used: string | undefined;
  let untilMs: number | undefined;
  for (const counter of counters) {
    if (counter.window !== window || (counter.licenseId !== undefined && counter.licenseId !== id)) continue;
    const endMs = windowEndMs(counter);
    if (endMs !== undefined && endMs <= nowMs) continue;
    used = used === undefined ? counter.used : new Big(used).plus(counter.used).toFixed();
    if (endMs !== undefined && (untilMs === undefined || endMs < untilMs)) untilMs = endMs;
  }
  return used === undefined ? unused : { used, untilMs };
}

/** How old what is known of usage may be, in whole milliseconds. */
export function usageStalenessMs({ asOfMs }: Usage, nowMs: number): number {
  return Math.max(0, Math.ceil(nowMs - asOfMs));
}

/** The first moment that no longer belongs to the window of a counter; undefined: it has no end. */
function windowEndMs({ window, windowStartMs }: UsageLevel): number | undefined {
  if (windowStartMs === undefined) return undefined;
  if (window === "PER_DAY") return windowStartMs + dayMs;
  const start = new Date(windowStartMs);
  return Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1);
}

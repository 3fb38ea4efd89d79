/** What one customer has used of a metric under one license, as decimals; days and months are dates such as `2026-11-01`, in UTC. */
export interface Level {
  readonly metric: string;
  /** Empty where events name none. */
  readonly licenseId: string;
  /** The last day with usage; a sender's clock that is ahead can bring it before it has begun. */
  readonly day: string;
  readonly dayUsed: string;
  readonly dayBeforeUsed: string;
  /** The first day of the last month with usage. */
  readonly month: string;
  readonly monthUsed: string;
  readonly monthBeforeUsed: string;
  readonly lifetimeUsed: string;
  /** How many events are in it. */
  readonly events: bigint;
}

/** What was used in one span of time. */
export interface Window {
  /** When it began, in epoch milliseconds. */
  readonly startMs: number;
  /** A decimal. */
  readonly used: string;
}

/** The day and the month of a level that were the last ones to begin by `nowMs`. */
export function presentLevel(level: Level, nowMs: number): { readonly day: Window; readonly month: Window } {
  const dayMs = Date.parse(level.day);
  const monthMs = Date.parse(level.month);
  return {
    day:
      dayMs > nowMs ? { startMs: dayMs - DAY_MS, used: level.dayBeforeUsed } : { startMs: dayMs, used: level.dayUsed },
    month:
      monthMs > nowMs
        ? { startMs: monthBeforeMs(monthMs), used: level.monthBeforeUsed }
        : { startMs: monthMs, used: level.monthUsed },
  };
}

/** Whether there is usage of a day that has not begun: it will have to be told when it has. */
export function liesAhead({ day }: Level, nowMs: number): boolean {
  return Date.parse(day) > nowMs;
}

const DAY_MS = 86_400_000;

function monthBeforeMs(startMs: number): number {
  const start = new Date(startMs);
  return Date.UTC(start.getUTCFullYear(), start.getUTCMonth() - 1);
}

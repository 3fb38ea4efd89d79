/** A span of time; `start` is included, `end` is not. */
export interface Period {
  readonly start: Date;
  readonly end: Date;
}

const DAY_MS = 86_400_000;

/** UTC midnight of the day that a time lies in. */
export function startOfDay(time: Date): Date {
  return new Date(Math.floor(time.getTime() / DAY_MS) * DAY_MS);
}

/** The same day and time so many UTC months later; on the last day of that month where it is too short (31 January, 28 February). */
export function addMonths(time: Date, months: number): Date {
  const moved = new Date(time);
  moved.setUTCMonth(time.getUTCMonth() + months);
  // Too short a month: the date ran over into the next one. Day 0 is the last day of the month before.
  if (moved.getUTCDate() !== time.getUTCDate()) moved.setUTCDate(0);
  return moved;
}

/** How many calendar months (UTC) the month of `to` comes after that of `from`, whatever the days. */
export function calendarMonthsBetween(from: Date, to: Date): number {
  return 12 * (to.getUTCFullYear() - from.getUTCFullYear()) + to.getUTCMonth() - from.getUTCMonth();
}

/** The UTC calendar month that a time lies in. */
export function calendarMonthOf(time: Date): Period {
  const start = startOfDay(time);
  start.setUTCDate(1);
  return { start, end: addMonths(start, 1) };
}

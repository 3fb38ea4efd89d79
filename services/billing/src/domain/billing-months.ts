import { addMonths, calendarMonthsBetween, type Period, startOfDay } from "./calendar.ts";

/** How long a license is billed. */
export interface BilledTime {
  readonly validFrom: Date;
  /** When it expires, or was revoked or cancelled if that was earlier; undefined: never. */
  readonly endsAt: Date | undefined;
}

/** A month of a license's bill. Its bounds are UTC midnights. */
export interface BillingMonth extends Period {
  /** Which month of the license it is, from 0. */
  readonly index: number;
}

/**
 * The billing months of a license that start in a period.
 *
 * Month k starts k months after the UTC day on which the license begins, on the last day where a month is too short;
 * each is computed from the beginning, so the 31st comes back after February. There is a month k as long as the license
 * has not ended k months after its exact beginning: a license for one year from 10:00 has twelve months, although a
 * thirteenth would begin at midnight before its end. A month that has begun is billed whole. A pending license has no
 * month before it begins, and one that was suspended has all of them: suspension is the vendor's stop of use, not of the
 * agreement.
 */
export function monthsStartingIn(time: BilledTime, period: Period): BillingMonth[] {
  const months: BillingMonth[] = [];
  const first = indexAt(time, new Date(period.start.getTime() - 1)) + 1;
  for (let index = Math.max(0, first); ; index += 1) {
    const month = monthOf(time, index);
    if (month === undefined || month.start >= period.end) return months;
    months.push(month);
  }
}

/** The billing month of a license that a time lies in, if it has one there. */
export function monthAt(time: BilledTime, at: Date): BillingMonth | undefined {
  const index = indexAt(time, at);
  return index < 0 ? undefined : monthOf(time, index);
}

/** Where month `index` of a license starts, or would start if the license had no end. */
export function monthStart({ validFrom }: BilledTime, index: number): Date {
  return addMonths(startOfDay(validFrom), index);
}

function monthOf(time: BilledTime, index: number): BillingMonth | undefined {
  const { validFrom, endsAt } = time;
  if (endsAt !== undefined && addMonths(validFrom, index) >= endsAt) return undefined;
  return { index, start: monthStart(time, index), end: monthStart(time, index + 1) };
}

/** Which month a time would lie in if the license had neither beginning nor end; negative before its beginning. */
function indexAt(time: BilledTime, at: Date): number {
  const index = calendarMonthsBetween(time.validFrom, at);
  return monthStart(time, index) <= at ? index : index - 1;
}

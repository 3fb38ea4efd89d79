import { invalidArgument } from "@licet/platform/errors";

const HOUR_MS = 3_600_000;
const DEFAULT_DAYS = 30;
/** A little more than the three years that usage is kept. */
const MAX_DAYS = 1_100;

/** The last whole hour that a protobuf timestamp can hold. */
const LAST_MS = Date.parse("9999-12-31T23:00:00Z");

/** A span of whole hours, the end excluded. */
export interface Period {
  start: Date;
  end: Date;
}

/**
 * The period that a question means, in whole hours: the start is rounded down, the end up. Without an end it ends
 * with the present hour, without a start it begins 30 days before its end.
 *
 * @throws ServiceError INVALID_ARGUMENT when it would end before it begins, or is longer than 1,100 days
 */
export function wholeHours(start: Date | undefined, end: Date | undefined, now: Date): Period {
  const endMs = end
    ? Math.ceil(end.getTime() / HOUR_MS) * HOUR_MS
    : (Math.floor(now.getTime() / HOUR_MS) + 1) * HOUR_MS;
  const startMs = Math.floor((start?.getTime() ?? endMs - DEFAULT_DAYS * 24 * HOUR_MS) / HOUR_MS) * HOUR_MS;
  if (!(startMs >= 0 && endMs <= LAST_MS)) {
    throw invalidArgument(start ? "start_time" : "end_time", "must lie in the years 1970 to 9999");
  }
  if (!(startMs < endMs))
    throw invalidArgument("start_time", "must be earlier than end_time, which is now when absent");
  if (endMs - startMs > MAX_DAYS * 24 * HOUR_MS) {
    throw invalidArgument("start_time", `must be at most ${MAX_DAYS} days before end_time`);
  }
  return { start: new Date(startMs), end: new Date(endMs) };
}

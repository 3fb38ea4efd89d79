import { Big } from "big.js";
import type { License, Limit, LimitWindow, UsageLevels } from "./entitlement.ts";
import { isCounted, usedSoFar } from "./usage.ts";

/** A value of the context that a limit counts is no number. */
export class InvalidValueError extends Error {
  override readonly name = "InvalidValueError";
  /** Where it is, by proto names: `context["users"]`. */
  readonly field: string;
  /** What would be right, such as `must be a decimal number such as 50`. */
  readonly description: string;

  constructor(field: string, description: string) {
    super(`${field}: ${description}`);
    this.field = field;
    this.description = description;
  }
}

/**
 * Where the value comes from that a limit is compared with: the context says what will be after the action, and usage what
 * was used before it.
 */
export type LimitSource = "CONTEXT" | "USAGE";

/** A limit beside the value that it is compared with. */
export interface ComparedLimit {
  readonly limit: Limit;
  /** The limit's maximum. */
  readonly maximum: bigint;
  /** A decimal without exponent. */
  readonly current: string;
  readonly source: LimitSource;
  /** Whether the value is above the maximum, or of usage: whether nothing is left. */
  readonly exceeded: boolean;
  /** When the count begins anew, in epoch milliseconds; undefined: a value of the context, or never. */
  readonly resetsAtMs: number | undefined;
}

const decimalPattern = /^-?[0-9]+(\.[0-9]+)?$/;

/** What stands behind a metric where one of its windows is meant, such as `/per_day`. */
export const windowSuffix: Readonly<Record<LimitWindow, string>> = {
  GAUGE: "/gauge",
  PER_SECOND: "/per_second",
  PER_DAY: "/per_day",
  PER_MONTH: "/per_month",
  LIFETIME: "/lifetime",
};

/**
 * Checks the values that the limits of these licenses are about; other values are none of our business. A key is a metric,
 * for all its limits, or a metric and a window (`api_calls/per_day`), for that one.
 *
 * @throws {InvalidValueError} naming `context["<key>"]` when such a value is no decimal.
 */
export function checkValues(licenses: readonly License[], values: ReadonlyMap<string, string>): void {
  if (values.size === 0) return;
  for (const { limits } of licenses) {
    for (const limit of limits) {
      const key = keyOf(limit, values);
      if (key === undefined || decimalPattern.test(values.get(key) ?? "")) continue;
      throw new InvalidValueError(
        `context["${key}"]`,
        "must be a decimal number such as 50 or 0.5, because a limit counts this metric",
      );
    }
  }
}

/**
 * The limits of a license of which a value is known, each beside it. A value of the context is the state after the action, so
 * one that equals the maximum is allowed; it is taken in place of what usage has counted. Usage is the state before the
 * action: where that equals the maximum, nothing is left to use.
 *
 * @param values - those of the context, after {@link checkValues}
 */
export function compareLimits(
  license: License,
  values: ReadonlyMap<string, string>,
  usage: UsageLevels | undefined,
  nowMs: number,
): readonly ComparedLimit[] {
  if (values.size === 0 && usage === undefined) return [];
  return license.limits.flatMap((limit) => compare(limit, license, values, usage, nowMs) ?? []);
}

function compare(
  limit: Limit,
  license: License,
  values: ReadonlyMap<string, string>,
  usage: UsageLevels | undefined,
  nowMs: number,
): ComparedLimit | undefined {
  const { metric, maximum, window } = limit;
  if (maximum === undefined) return undefined;
  const key = keyOf(limit, values);
  const value = key === undefined ? undefined : values.get(key);
  if (value !== undefined) {
    const exceeded = signOfDifference(value, maximum) > 0;
    return { limit, maximum, current: plain(value), source: "CONTEXT", exceeded, resetsAtMs: undefined };
  }
  if (usage === undefined || !isCounted(window)) return undefined;
  const { used, untilMs } = usedSoFar(usage, license, metric, window, nowMs);
  const exceeded = signOfDifference(used, maximum) >= 0;
  return { limit, maximum, current: plain(used), source: "USAGE", exceeded, resetsAtMs: untilMs };
}

/** The key whose value a limit is compared with: that of its window before that of all windows. */
function keyOf({ metric, window }: Limit, values: ReadonlyMap<string, string>): string | undefined {
  if (values.size === 0) return undefined;
  const ofWindow = metric + windowSuffix[window];
  if (values.has(ofWindow)) return ofWindow;
  return values.has(metric) ? metric : undefined;
}

/** The sign of a decimal less a whole number that is not negative. Without big.js, because every check with values does it. */
function signOfDifference(decimal: string, whole: bigint): number {
  if (decimal.startsWith("-")) return -1;
  const point = decimal.indexOf(".");
  const floor = BigInt(point < 0 ? decimal : decimal.slice(0, point));
  if (floor !== whole) return floor < whole ? -1 : 1;
  return point >= 0 && /[1-9]/.test(decimal.slice(point)) ? 1 : 0;
}

/** A decimal without zeros that say nothing. */
function plain(decimal: string): string {
  return /^(0|[1-9][0-9]*)$/.test(decimal) ? decimal : new Big(decimal).toFixed();
}

import { invalidArgument } from "@licet/platform/errors";
import { Big } from "big.js";
import type { License, Limit } from "./entitlement.ts";

/** A limit that a value exceeds. */
export interface ExceededLimit {
  readonly limit: Limit;
  /** The limit's maximum. */
  readonly maximum: bigint;
  /** The value asked about, as a decimal without exponent. */
  readonly current: string;
}

const decimalPattern = /^-?[0-9]+(\.[0-9]+)?$/;

/**
 * Reads the values that the limits of these licenses are about; other values
 * are none of our business.
 *
 * @throws {ServiceError} INVALID_ARGUMENT naming `context["<metric>"]` when such a value is no decimal.
 */
export function readLevels(
  licenses: readonly License[],
  values: ReadonlyMap<string, string>,
): ReadonlyMap<string, Big> {
  const levels = new Map<string, Big>();
  if (values.size === 0) return levels;
  for (const { limits } of licenses) {
    for (const { metric } of limits) {
      const text = values.get(metric);
      if (text === undefined || levels.has(metric)) continue;
      if (!decimalPattern.test(text)) {
        throw invalidArgument(
          `context["${metric}"]`,
          "must be a decimal number such as 50 or 0.5, because a limit counts this metric",
        );
      }
      levels.set(metric, new Big(text));
    }
  }
  return levels;
}

/**
 * The limits that the levels exceed. A level is the state after the action, so
 * one that equals the maximum is allowed.
 */
export function exceededLimits(limits: readonly Limit[], levels: ReadonlyMap<string, Big>): readonly ExceededLimit[] {
  if (levels.size === 0) return [];
  return limits.flatMap((limit) => {
    const level = levels.get(limit.metric);
    const maximum = limit.maximum;
    if (level === undefined || maximum === undefined || !level.gt(maximum.toString())) return [];
    return [{ limit, maximum, current: level.toFixed() }];
  });
}

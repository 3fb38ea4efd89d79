import Big from "big.js";
import { type BillingMonth, monthAt } from "./billing-months.ts";
import type { UsageCharge } from "./charges.ts";
import type { PricedLicense } from "./pricing.ts";

/** What was used of a metric in a UTC day or a part of one. */
export interface Usage {
  readonly metric: string;
  /** Undefined where the events named no license. */
  readonly licenseId: string | undefined;
  /** When the day, or the part of it, starts. */
  readonly start: Date;
  /** A decimal. */
  readonly quantity: string;
}

/** How much was used of a charge's metric in its month. */
export type QuantityOf = (charge: UsageCharge) => Big;

/**
 * Gives each use to the license and the billing month that are charged for it.
 *
 * Use that names a license is that license's. Use that names none is charged to the oldest of the customer's licenses that
 * prices the metric and has a billing month on that day; it gets that month whole, whatever other licenses begin in it, and
 * one that has ended gets nothing that comes later. What finds no month of a license that prices the metric is not charged.
 *
 * @param licenses - all priced licenses of the customer, oldest first, also those whose charges are not asked for: who is
 * charged for a use must not depend on the question
 */
export function attribute(licenses: readonly PricedLicense[], usage: readonly Usage[]): QuantityOf {
  const sums = new Map<string, Big>();
  for (const { metric, licenseId, start, quantity } of usage) {
    for (const license of licenses) {
      if (licenseId !== undefined && license.licenseId !== licenseId) continue;
      const month = hasPrice(license, metric) ? monthAt(license, start) : undefined;
      if (month === undefined) continue;
      const key = keyOf(license, metric, month);
      sums.set(key, (sums.get(key) ?? Big(0)).plus(quantity));
      break;
    }
  }
  return ({ license, price, span }) => sums.get(keyOf(license, price.metric, span)) ?? Big(0);
}

function hasPrice({ prices }: PricedLicense, metric: string): boolean {
  return prices.usage.some((price) => price.metric === metric);
}

function keyOf({ licenseId }: PricedLicense, metric: string, { index }: BillingMonth): string {
  return `${licenseId}/${metric}/${index}`;
}

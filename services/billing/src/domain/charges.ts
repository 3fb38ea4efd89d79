import type { ServiceError } from "@licet/platform/errors";
import { failure } from "../errors.ts";
import { type BillingMonth, monthStart, monthsStartingIn } from "./billing-months.ts";
import type { Period } from "./calendar.ts";
import { type Money, monthlyPart } from "./money.ts";
import type { PricedLicense, UsagePrice } from "./pricing.ts";

/** A part of a license's base price that falls due. */
export interface BaseCharge {
  readonly kind: "base";
  readonly license: PricedLicense;
  /** What it pays for, in advance. */
  readonly span: Period;
  readonly price: Money;
}

/** A month in which use of a metric is charged; how much that is, metering knows. */
export interface UsageCharge {
  readonly kind: "usage";
  readonly license: PricedLicense;
  readonly span: BillingMonth;
  readonly price: UsagePrice;
}

/** What falls due once: a base price, or the use of a month. */
export type Charge = BaseCharge | UsageCharge;

/**
 * What falls due in a period: of each license the base price of the months that start in it, or of the years where it is
 * billed by the year, and the use in each month that starts in it. Whatever the periods are into which time is cut, each
 * charge falls into exactly one.
 *
 * @returns in the order of the licenses, base before usage, by time
 */
export function chargesIn(licenses: readonly PricedLicense[], period: Period): Charge[] {
  return licenses.flatMap((license) => {
    const months = monthsStartingIn(license, period);
    const usage = months.flatMap((span) =>
      license.prices.usage.map((price): UsageCharge => ({ kind: "usage", license, span, price })),
    );
    return [...months.flatMap((month) => baseCharge(license, month) ?? []), ...usage];
  });
}

function baseCharge(license: PricedLicense, month: BillingMonth): BaseCharge | undefined {
  const { billingCycle, prices } = license;
  if (prices.base === undefined) return undefined;
  const { cycle, ...price } = prices.base;
  if (cycle === "month") return { kind: "base", license, span: month, price };
  if (billingCycle === "month") {
    const part = { currency: price.currency, amountMinor: monthlyPart(price.amountMinor, month.index) };
    return { kind: "base", license, span: month, price: part };
  }
  if (month.index % 12 !== 0) return undefined;
  const span = { start: month.start, end: monthStart(license, month.index + 12) };
  return { kind: "base", license, span, price };
}

/**
 * The charges in one currency: the one that is asked for, or the only one there is.
 *
 * @param asked - ISO 4217; empty: none
 * @throws ServiceError FAILED_PRECONDITION `MIXED_CURRENCIES` when none is asked for and there are several
 */
export function inOneCurrency(charges: readonly Charge[], asked: string): readonly Charge[] {
  if (asked !== "") return charges.filter(({ price }) => price.currency === asked);
  const currencies = [...new Set(charges.map(({ price }) => price.currency))].sort();
  if (currencies.length > 1) throw mixedCurrencies(currencies);
  return charges;
}

function mixedCurrencies(currencies: readonly string[]): ServiceError {
  return failure(
    "MIXED_CURRENCIES",
    `The period has charges in ${currencies.join(" and ")}; ask for those in one of them by currency.`,
    { currencies: currencies.join(",") },
  );
}

import type { ServiceError } from "@licet/platform/errors";
import { failure } from "../errors.ts";
import { type BillingMonth, monthStart, monthsStartingIn } from "./billing-months.ts";
import type { Period } from "./calendar.ts";
import { type Money, monthlyPart } from "./money.ts";
import type { Cycle, PricedAddOn, PricedLicense, UsagePrice } from "./pricing.ts";

/** A part of a license's base price that falls due. */
export interface BaseCharge {
  readonly kind: "base";
  readonly license: PricedLicense;
  /** What it pays for, in advance. */
  readonly span: Period;
  readonly price: Money;
}

/** Units of an add-on that fall due. */
export interface AddOnCharge {
  readonly kind: "add_on";
  readonly license: PricedLicense;
  /** What they pay for, in advance. */
  readonly span: Period;
  readonly addOn: string;
  readonly quantity: number;
  /** Of one unit. */
  readonly price: Money;
}

/** A month in which use of a metric is charged; how much that is, metering knows. */
export interface UsageCharge {
  readonly kind: "usage";
  readonly license: PricedLicense;
  readonly span: BillingMonth;
  readonly price: UsagePrice;
}

/** What falls due once: a base price, units of an add-on, or the use of a month. */
export type Charge = BaseCharge | AddOnCharge | UsageCharge;

/**
 * What falls due in a period: of each license the base price of the months that start in it, or of the years where it is
 * billed by the year, the units of its add-ons likewise, and the use in each month that starts in it. Whatever the periods are into which time is cut, each
 * charge falls into exactly one.
 *
 * @returns in the order of the licenses, base before add-ons before usage, by time
 */
export function chargesIn(licenses: readonly PricedLicense[], period: Period): Charge[] {
  return licenses.flatMap((license) => {
    const months = monthsStartingIn(license, period);
    const usage = months.flatMap((span) =>
      license.prices.usage.map((price): UsageCharge => ({ kind: "usage", license, span, price })),
    );
    const addOns = months.flatMap((month) => license.addOns.flatMap((held) => addOnCharge(license, held, month) ?? []));
    return [...months.flatMap((month) => baseCharge(license, month) ?? []), ...addOns, ...usage];
  });
}

function baseCharge(license: PricedLicense, month: BillingMonth): BaseCharge | undefined {
  const due = license.prices.base && dueIn(license, license.prices.base, month);
  return due && { kind: "base", license, ...due };
}

/** A yearly price that is billed in months is divided for each unit, so that a unit costs the same whatever their number. */
function addOnCharge(license: PricedLicense, held: PricedAddOn, month: BillingMonth): AddOnCharge | undefined {
  const { addOn, quantity, price } = held;
  const due = dueIn(license, price, month);
  return due && { kind: "add_on", license, addOn, quantity, ...due };
}

/** What of a recurring price falls due with a month, and the span that it is for; undefined: nothing. */
function dueIn(
  license: PricedLicense,
  { cycle, ...price }: Money & { readonly cycle: Cycle },
  month: BillingMonth,
): { span: Period; price: Money } | undefined {
  if (cycle === "month") return { span: month, price };
  if ((license.billingCycle ?? cycle) === "month") {
    return { span: month, price: { ...price, amountMinor: monthlyPart(price.amountMinor, month.index) } };
  }
  if (month.index % 12 !== 0) return undefined;
  return { span: { start: month.start, end: monthStart(license, month.index + 12) }, price };
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

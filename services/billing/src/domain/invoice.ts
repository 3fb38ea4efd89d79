import Big from "big.js";
import { failure } from "../errors.ts";
import type { Period } from "./calendar.ts";
import type { BaseCharge, Charge, UsageCharge } from "./charges.ts";
import { MAX_AMOUNT_MINOR, type Money, toMajor, toMinor } from "./money.ts";
import type { PricedLicense } from "./pricing.ts";
import type { QuantityOf } from "./usage.ts";

/** One charge of an invoice. All quantities and prices are decimals. */
export interface InvoiceLine {
  readonly kind: "base" | "usage";
  readonly license: PricedLicense;
  readonly description: string;
  readonly span: Period;
  /** Undefined for base lines. */
  readonly metric: string | undefined;
  readonly quantity: string;
  readonly included: string;
  /** Quantity less included, at least 0. */
  readonly billable: string;
  /** Major units for one unit. */
  readonly unitPrice: string;
  /** Billable times unit price, rounded once, half up. */
  readonly amount: Money;
}

/**
 * The lines of an invoice: one for each base charge, one for each usage charge of which anything was used, also when all
 * of it is included.
 *
 * @throws ServiceError FAILED_PRECONDITION `AMOUNT_TOO_LARGE`
 */
export function invoiceLines(charges: readonly Charge[], quantityOf: QuantityOf): InvoiceLine[] {
  return charges.flatMap((charge) => {
    if (charge.kind === "base") return baseLine(charge);
    const quantity = quantityOf(charge);
    return quantity.gt(0) ? usageLine(charge, quantity) : [];
  });
}

function baseLine({ kind, license, span, price }: BaseCharge): InvoiceLine {
  const { plan, planName } = license.prices;
  return {
    kind,
    license,
    description: `${planName || plan} of ${license.product}`,
    span,
    metric: undefined,
    quantity: "1",
    included: "0",
    billable: "1",
    unitPrice: toMajor(price),
    amount: price,
  };
}

function usageLine({ kind, license, span, price }: UsageCharge, quantity: Big): InvoiceLine {
  const { metric, currency, decimal } = price;
  const included = Big(price.includedPerMonth.toString());
  const billable = quantity.gt(included) ? quantity.minus(included) : Big(0);
  const amountMinor = toMinor(billable.times(decimal), currency);
  if (amountMinor > MAX_AMOUNT_MINOR) {
    throw tooLarge(`the use of ${metric} under license ${license.licenseId}`, amountMinor, currency);
  }
  return {
    kind,
    license,
    description: `${metric}: ${quantity.toFixed()} used, ${included.toFixed()} included`,
    span,
    metric,
    quantity: quantity.toFixed(),
    included: included.toFixed(),
    billable: billable.toFixed(),
    unitPrice: decimal,
    amount: { currency, amountMinor },
  };
}

/**
 * The sum of lines that are all in one currency.
 *
 * @throws ServiceError FAILED_PRECONDITION `AMOUNT_TOO_LARGE`
 */
export function totalOf(lines: readonly InvoiceLine[], currency: string): Money {
  const amountMinor = lines.reduce((sum, { amount }) => sum + amount.amountMinor, 0n);
  if (amountMinor > MAX_AMOUNT_MINOR) throw tooLarge("the total", amountMinor, currency);
  return { currency, amountMinor };
}

function tooLarge(what: string, amountMinor: bigint, currency: string) {
  return failure(
    "AMOUNT_TOO_LARGE",
    `An amount is at most ${MAX_AMOUNT_MINOR} minor units; ${what} comes to ${currency} ${amountMinor}. Is a quantity wrong?`,
  );
}

import Big from "big.js";
import { failure } from "../errors.ts";
import type { Period } from "./calendar.ts";
import type { AddOnCharge, BaseCharge, Charge, UsageCharge } from "./charges.ts";
import { MAX_AMOUNT_MINOR, type Money, toMajor, toMinor } from "./money.ts";
import type { PricedLicense } from "./pricing.ts";
import type { QuantityOf } from "./usage.ts";

/** One charge of an invoice. All quantities and prices are decimals. */
export interface InvoiceLine {
  readonly kind: Charge["kind"];
  readonly license: PricedLicense;
  readonly description: string;
  readonly span: Period;
  /** Of usage lines. */
  readonly metric: string | undefined;
  /** Of add-on lines. */
  readonly addOn: string | undefined;
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
 * The lines of an invoice: one for each charge of a base price or an add-on, one for each usage charge of which anything was used, also when all
 * of it is included.
 *
 * @throws ServiceError FAILED_PRECONDITION `AMOUNT_TOO_LARGE`
 */
export function invoiceLines(charges: readonly Charge[], quantityOf: QuantityOf): InvoiceLine[] {
  return charges.flatMap((charge) => {
    if (charge.kind === "base") return baseLine(charge);
    if (charge.kind === "add_on") return addOnLine(charge);
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
    addOn: undefined,
    quantity: "1",
    included: "0",
    billable: "1",
    unitPrice: toMajor(price),
    amount: price,
  };
}

function addOnLine({ kind, license, span, addOn, quantity, price }: AddOnCharge): InvoiceLine {
  const { currency } = price;
  const amountMinor = BigInt(quantity) * price.amountMinor;
  if (amountMinor > MAX_AMOUNT_MINOR) {
    throw tooLarge(`add-on ${addOn} of license ${license.licenseId}`, amountMinor, currency);
  }
  const { plan, planName } = license.prices;
  return {
    kind,
    license,
    description: `${addOn} with ${planName || plan} of ${license.product}`,
    span,
    metric: undefined,
    addOn,
    quantity: `${quantity}`,
    included: "0",
    billable: `${quantity}`,
    unitPrice: toMajor(price),
    amount: { currency, amountMinor },
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
    addOn: undefined,
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

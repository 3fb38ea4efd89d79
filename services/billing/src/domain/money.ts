import Big from "big.js";

/** An amount in minor units of its currency: 208334 is USD 2,083.34. */
export interface Money {
  /** ISO 4217. */
  readonly currency: string;
  readonly amountMinor: bigint;
}

/** The most, and the least below zero, that an amount may be: what int64 holds. */
export const MAX_AMOUNT_MINOR = 2n ** 63n - 1n;

/**
 * The currencies whose minor unit is not a hundredth, by the number of its decimals (ISO 4217, list one). Not from
 * Intl.NumberFormat: that knows how many decimals people write, which is 0 for COP, HUF, IDR, IQD, LBP, PKR and others.
 */
const otherDecimals: ReadonlyMap<string, number> = new Map(
  Object.entries({
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
  }).flatMap(([decimals, currencies]) => currencies.split(" ").map((currency) => [currency, Number(decimals)])),
);

/** How many decimals a currency's minor unit has: 2 for USD, 0 for JPY, 3 for KWD. */
export function minorDecimals(currency: string): number {
  return otherDecimals.get(currency) ?? 2;
}

/** An amount in major units, as a decimal with all its decimals: `2083.34`. */
export function toMajor({ currency, amountMinor }: Money): string {
  const decimals = minorDecimals(currency);
  return Big(amountMinor.toString()).times(Big(10).pow(-decimals)).toFixed(decimals);
}

/** Major units in minor units, rounded half up. */
export function toMinor(major: Big, currency: string): bigint {
  const exact = major.times(Big(10).pow(minorDecimals(currency)));
  return BigInt(exact.round(0, Big.roundHalfUp).toFixed());
}

/**
 * What one month costs of a yearly price that is paid in months: a twelfth, and one minor unit more in the first months
 * of each year, as many as the twelfths leave over. Twelve months in a row sum to the year (product.md, Money).
 *
 * @param yearMinor - the price of a year in minor units, not negative
 * @param month - which month of the license, from 0
 */
export function monthlyPart(yearMinor: bigint, month: number): bigint {
  const leftOver = yearMinor % 12n;
  return yearMinor / 12n + (BigInt(month % 12) < leftOver ? 1n : 0n);
}

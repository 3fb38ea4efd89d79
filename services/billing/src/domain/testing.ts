import type { PricedLicense, Prices } from "./pricing.ts";

/** The standard plan of the demo data: USD 25,000 a year; 500 requests a month free, then USD 0.0125 each. */
export const standard: Prices = {
  plan: "standard",
  planName: "Standard",
  base: { currency: "USD", amountMinor: 2_500_000n, cycle: "year" },
  usage: [{ metric: "exchange_requests", includedPerMonth: 500n, currency: "USD", decimal: "0.0125" }],
};

/** A license of that plan from 22 November 2026 for one year, billed monthly. */
export function license(overrides: Partial<PricedLicense> = {}): PricedLicense {
  return {
    licenseId: "l1",
    product: "trading",
    prices: standard,
    addOns: [],
    validFrom: new Date("2026-11-22T10:00:00Z"),
    endsAt: new Date("2027-11-22T10:00:00Z"),
    billingCycle: "month",
    ...overrides,
  };
}

/** A period between two UTC days such as `2026-11-01`. */
export function period(start: string, end: string) {
  return { start: new Date(`${start}T00:00:00Z`), end: new Date(`${end}T00:00:00Z`) };
}

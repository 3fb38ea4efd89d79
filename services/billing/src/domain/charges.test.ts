import { describe, expect, test } from "@jest/globals";
import Big from "big.js";
import fc from "fast-check";
import { addMonths } from "./calendar.ts";
import { type Charge, chargesIn, inOneCurrency } from "./charges.ts";
import { invoiceLines } from "./invoice.ts";
import type { PricedAddOn, PricedLicense, Prices } from "./pricing.ts";
import { license, period, standard } from "./testing.ts";

const eternity = period("2020-01-01", "2040-01-01");
const isoDay = (time: Date) => time.toISOString().slice(0, 10);

/** Base charges as `start amount`, those of add-ons as `start quantity add-on amount`, usage charges as `start metric`. */
function told(charges: readonly Charge[]): string[] {
  return charges.map((charge) => {
    const start = isoDay(charge.span.start);
    if (charge.kind === "base") return `${start} ${charge.price.amountMinor}`;
    if (charge.kind === "usage") return `${start} ${charge.price.metric}`;
    return `${start} ${charge.quantity} ${charge.addOn} ${charge.price.amountMinor}`;
  });
}

/** Units of `tb` at USD 4,000.00 a year or another price. */
const terabytes = (quantity: number, amountMinor = 400_000n, cycle: "month" | "year" = "year"): PricedAddOn => ({
  addOn: "tb",
  quantity,
  price: { currency: "USD", amountMinor, cycle },
});

const baseOnly = (base: Prices["base"]): Prices => ({ ...standard, base, usage: [] });

describe("chargesIn", () => {
  test("a yearly price billed monthly: a part each month, and the use of that month", () => {
    expect(told(chargesIn([license()], period("2027-02-01", "2027-04-01")))).toEqual([
      "2027-02-22 208334",
      "2027-03-22 208333",
      "2027-02-22 exchange_requests",
      "2027-03-22 exchange_requests",
    ]);
  });

  test("a yearly price billed yearly: the year when it begins, use still by the month", () => {
    const yearly = license({ billingCycle: "year", endsAt: undefined });
    const charges = chargesIn([yearly], period("2027-11-01", "2028-01-01"));
    expect(told(charges)).toEqual([
      "2027-11-22 2500000",
      "2027-11-22 exchange_requests",
      "2027-12-22 exchange_requests",
    ]);
    expect(charges[0]?.span).toMatchObject(period("2027-11-22", "2028-11-22"));
    expect(told(chargesIn([yearly], period("2027-12-01", "2028-01-01")))).toEqual(["2027-12-22 exchange_requests"]);
  });

  test("a license for one year from 10:00 is not billed a second year at midnight before its end", () => {
    expect(told(chargesIn([license({ billingCycle: "year", prices: baseOnly(standard.base) })], eternity))).toEqual([
      "2026-11-22 2500000",
    ]);
  });

  test("a monthly price: all of it each month", () => {
    const prices = baseOnly({ currency: "USD", amountMinor: 9_900n, cycle: "month" });
    const monthly = license({ prices, endsAt: new Date("2027-01-22T10:00:00Z") });
    expect(told(chargesIn([monthly], eternity))).toEqual(["2026-11-22 9900", "2026-12-22 9900"]);
  });

  test("add-ons come between base and use, in the base's rhythm; a monthly price each month", () => {
    const addOns = [terabytes(2), terabytes(1, 900n, "month")];
    const monthly = license({ addOns });
    expect(told(chargesIn([monthly], period("2027-03-01", "2027-04-01")))).toEqual([
      "2027-03-22 208333",
      "2027-03-22 2 tb 33333",
      "2027-03-22 1 tb 900",
      "2027-03-22 exchange_requests",
    ]);
    const yearly = license({ addOns, billingCycle: "year", prices: baseOnly(standard.base), endsAt: undefined });
    expect(told(chargesIn([yearly], period("2027-10-01", "2027-12-01")))).toEqual([
      "2027-11-22 2500000",
      "2027-10-22 1 tb 900",
      "2027-11-22 2 tb 400000",
      "2027-11-22 1 tb 900",
    ]);
  });

  test("with a plan that costs nothing, add-ons are billed in their own cycle", () => {
    const free = { prices: baseOnly(undefined), billingCycle: undefined };
    const charges = chargesIn([license({ ...free, addOns: [terabytes(1), terabytes(3, 5n, "month")] })], eternity);
    expect(told(charges).filter((line) => line.endsWith("400000"))).toEqual(["2026-11-22 1 tb 400000"]);
    expect(charges).toHaveLength(13);
  });

  test("a plan that prices use only", () => {
    const charges = chargesIn(
      [license({ prices: { ...standard, base: undefined } })],
      period("2026-11-01", "2026-12-01"),
    );
    expect(told(charges)).toEqual(["2026-11-22 exchange_requests"]);
  });

  test("licenses come in their order, each with its base before its use", () => {
    const licenses = [license({ licenseId: "l1" }), license({ licenseId: "l2" })];
    const charges = chargesIn(licenses, period("2026-11-01", "2026-12-01"));
    expect(charges.map((charge) => `${charge.license.licenseId} ${charge.kind}`)).toEqual([
      "l1 base",
      "l1 usage",
      "l2 base",
      "l2 usage",
    ]);
  });
});

describe("for every price and license", () => {
  const days = fc.date({
    min: new Date("2024-01-01T00:00:00Z"),
    max: new Date("2028-01-01T00:00:00Z"),
    noInvalidDate: true,
  });
  const amounts = fc.bigInt({ min: 0n, max: 10n ** 12n });
  const yearlyPrice = (amountMinor: bigint) => baseOnly({ currency: "USD", amountMinor, cycle: "year" });
  const sum = (charges: readonly Charge[]) =>
    charges.reduce((total, charge) => (charge.kind === "base" ? total + charge.price.amountMinor : total), 0n);

  test("a yearly price costs the same billed monthly and yearly", () => {
    fc.assert(
      fc.property(days, amounts, fc.integer({ min: 1, max: 5 }), (validFrom, amountMinor, years) => {
        const endsAt = addMonths(validFrom, 12 * years);
        const billed = (billingCycle: "month" | "year") =>
          sum(chargesIn([license({ validFrom, endsAt, billingCycle, prices: yearlyPrice(amountMinor) })], eternity));
        expect(billed("year")).toBe(amountMinor * BigInt(years));
        expect(billed("month")).toBe(amountMinor * BigInt(years));
      }),
    );
  });

  test("each unit of an add-on costs the same billed monthly and yearly, whatever their number", () => {
    fc.assert(
      fc.property(days, amounts, fc.integer({ min: 1, max: 1_000_000 }), (validFrom, amountMinor, quantity) => {
        const endsAt = addMonths(validFrom, 12);
        const held = { validFrom, endsAt, prices: baseOnly(undefined), addOns: [terabytes(quantity, amountMinor)] };
        for (const billingCycle of ["month", "year"] as const) {
          const lines = invoiceLines(chargesIn([license({ ...held, billingCycle })], eternity), () => Big(0));
          expect(lines.map((line) => line.quantity)).toEqual(lines.map(() => `${quantity}`));
          expect(lines.reduce((total, { amount }) => total + amount.amountMinor, 0n)).toBe(
            BigInt(quantity) * amountMinor,
          );
        }
      }),
    );
  });

  test("each charge falls into exactly one of the periods that time is cut into", () => {
    const licenses = fc.record({
      validFrom: days,
      endsAt: fc.option(days, { nil: undefined }),
      billingCycle: fc.constantFrom("month" as const, "year" as const, undefined),
      addOns: fc.constantFrom([], [terabytes(1)], [terabytes(2), terabytes(1, 5n, "month")]),
    });
    fc.assert(
      fc.property(licenses, days, days, days, (one, ...cuts) => {
        const [a, b, c] = cuts.sort((x, y) => x.getTime() - y.getTime()) as [Date, Date, Date];
        const charged = (start: Date, end: Date) => told(chargesIn([license(one)], { start, end })).sort();
        expect([...charged(a, b), ...charged(b, c)].sort()).toEqual(charged(a, c));
      }),
    );
  });
});

describe("inOneCurrency", () => {
  const inEuro: PricedLicense = license({
    licenseId: "l2",
    prices: baseOnly({ currency: "EUR", amountMinor: 100n, cycle: "month" }),
  });
  const november = period("2026-11-01", "2026-12-01");

  test("several currencies need one to be asked for", () => {
    const charges = chargesIn([license(), inEuro], november);
    expect(() => inOneCurrency(charges, "")).toThrow(
      expect.objectContaining({
        code: "FAILED_PRECONDITION",
        reason: "MIXED_CURRENCIES",
        message: "The period has charges in EUR and USD; ask for those in one of them by currency.",
        metadata: { currencies: "EUR,USD" },
      }),
    );
    expect(told(inOneCurrency(charges, "EUR"))).toEqual(["2026-11-22 100"]);
    expect(told(inOneCurrency(charges, "USD"))).toEqual(["2026-11-22 208334", "2026-11-22 exchange_requests"]);
    expect(inOneCurrency(charges, "JPY")).toEqual([]);
  });

  test("a license that is not charged in the period does not count", () => {
    const over = { ...inEuro, endsAt: new Date("2026-11-22T10:00:00Z") };
    expect(inOneCurrency(chargesIn([license(), over], november), "")).toHaveLength(2);
  });
});

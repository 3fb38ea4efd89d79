import { describe, expect, test } from "@jest/globals";
import { bareLicense, planLicense, type Wanted } from "./provision.ts";
import { checkTerms, type Plan, type PlanTerms, termEnd } from "./terms.ts";

const now = new Date("2026-11-22T10:00:00Z");
const wanted: Wanted = {
  licenseId: "l1",
  customerId: "c1",
  product: "trading",
  graceDays: 3,
  validFrom: now,
  autoRenew: false,
  metadata: { ref: "A1" },
  now,
};
const terms: PlanTerms = {
  type: "standard",
  features: ["basic_trading"],
  limits: [{ metric: "users", maximum: 50n, window: "gauge", enforcement: "hard" }],
  price: { currency: "USD", amountMinor: 2_500_000n, cycle: "year" },
  usagePrices: [{ metric: "exchange_requests", includedPerMonth: 500n, currency: "USD", decimal: "0.0125" }],
  grantable: [],
  termDays: 0,
  seats: 5,
  attributes: { support: "standard" },
};
const plan = (changes: Partial<PlanTerms> = {}): Plan => ({
  product: "trading",
  plan: "standard",
  name: "Standard",
  version: 3,
  latestVersion: 4,
  terms: { ...terms, ...changes },
  publishedAt: now,
  revision: 1n,
});

describe("termEnd", () => {
  test.each([
    ["a year in UTC", "2026-11-22T10:00:00Z", 0, "2027-11-22T10:00:00Z"],
    ["from 29 February to 28 February", "2028-02-29T12:00:00Z", 0, "2029-02-28T12:00:00Z"],
    ["days of 24 hours", "2026-11-22T10:00:00Z", 30, "2026-12-22T10:00:00Z"],
  ])("%s", (_what, from, days, end) => {
    expect(termEnd(new Date(from), days)).toEqual(new Date(end));
  });
});

describe("planLicense", () => {
  test("takes term, seats and billing cycle from the plan where nothing else is wanted", () => {
    expect(planLicense(wanted, plan())).toEqual({
      licenseId: "l1",
      customerId: "c1",
      product: "trading",
      plan: { code: "standard", version: 3 },
      type: "standard",
      decidedStatus: "active",
      statusReason: "",
      suspendedByBilling: false,
      base: { features: ["basic_trading"], limits: terms.limits, seats: 5 },
      addOns: [],
      features: ["basic_trading"],
      limits: terms.limits,
      attributes: { support: "standard" },
      grants: [],
      seats: 5,
      validFrom: now,
      validUntil: new Date("2027-11-22T10:00:00Z"),
      graceDays: 3,
      billingCycle: "year",
      autoRenew: false,
      metadata: { ref: "A1" },
      createdAt: now,
      updatedAt: now,
      revision: 1n,
      told: { status: "active", renewal: false },
    });
  });

  test("what is wanted wins: end, seats, a yearly price billed in months", () => {
    const validUntil = new Date("2027-01-01T00:00:00Z");
    expect(planLicense({ ...wanted, validUntil, seats: 7, billingCycle: "month" }, plan())).toMatchObject({
      validUntil,
      seats: 7,
      billingCycle: "month",
    });
  });

  test("a free plan has no billing cycle and refuses one", () => {
    const { price: _price, ...free } = terms;
    const freePlan = { ...plan(), terms: free };
    expect(planLicense(wanted, freePlan).billingCycle).toBeUndefined();
    expect(() => planLicense({ ...wanted, billingCycle: "month" }, freePlan)).toThrow(/billing_cycle.*no price/);
  });

  test("a price for a month can't be billed in years", () => {
    const monthly = plan({ price: { currency: "USD", amountMinor: 900n, cycle: "month" } });
    expect(() => planLicense({ ...wanted, billingCycle: "year" }, monthly)).toThrow(/billing_cycle.*CYCLE_MONTH/);
  });

  test("an end at or before the begin is refused with both", () => {
    expect(() => planLicense({ ...wanted, validUntil: now }, plan())).toThrow(/valid_until.*2026-11-22T10:00:00.000Z/);
  });
});

test("a license whose term or grace would leave the year 9999 is refused: no answer could hold its end", () => {
  const late = { ...wanted, validFrom: new Date("9999-06-01T00:00:00Z") };
  expect(() => planLicense(late, plan())).toThrow(/valid_from.*9999/);
  const end = { ...wanted, validUntil: new Date("9999-12-30T00:00:00Z") };
  expect(() => planLicense(end, plan())).toThrow(/valid_until.*9999/);
  expect(planLicense({ ...end, graceDays: 1 }, plan()).validUntil).toEqual(end.validUntil);
});

test("a bare license is custom, with the terms given and no bill", () => {
  const bare = { features: ["*"], limits: [] };
  const license = bareLicense({ ...wanted, validUntil: new Date("2027-01-01T00:00:00Z"), seats: 2 }, bare);
  expect(license).toMatchObject({ type: "custom", features: ["*"], limits: [], seats: 2 });
  expect(license).not.toHaveProperty("plan");
  const billed = { ...wanted, validUntil: new Date("2027-01-01T00:00:00Z"), billingCycle: "year" } as const;
  expect(() => bareLicense(billed, bare)).toThrow(/billing_cycle/);
});

describe("checkTerms", () => {
  test.each([
    ["* beside other features", { features: ["*", "a"] }, /terms\.features/],
    [
      "two limits on one metric and window",
      { limits: [...terms.limits, ...terms.limits] },
      /terms\.limits\[1\].*users gauge/,
    ],
    [
      "two prices of one metric",
      { usagePrices: [...terms.usagePrices, ...terms.usagePrices] },
      /terms\.usage_prices\[1\].*exchange_requests/,
    ],
    [
      "prices in two currencies",
      { price: { currency: "EUR", amountMinor: 1n, cycle: "year" as const } },
      /terms\.usage_prices.*USD and EUR/,
    ],
  ])("refuses %s", (_what, changes, message) => {
    expect(() => checkTerms({ ...terms, ...changes })).toThrow(message);
  });

  test("passes the same metric in two windows", () => {
    const limits = [...terms.limits, { metric: "users", window: "per_day", enforcement: "soft" } as const];
    expect(() => checkTerms({ ...terms, limits })).not.toThrow();
  });
});

import { describe, expect, test } from "@jest/globals";
import type { License } from "./license.ts";
import { cancel, changePlan, extendTrial, renew, update } from "./lifecycle.ts";
import { planLicense } from "./provision.ts";
import { adopted } from "./schedule.ts";
import type { Plan, PlanTerms } from "./terms.ts";

const now = new Date("2026-11-22T10:00:00Z");
const terms: PlanTerms = {
  type: "standard",
  features: ["a"],
  limits: [],
  usagePrices: [],
  termDays: 0,
  seats: 5,
  attributes: {},
};
const plan = (changes: Partial<PlanTerms> = {}): Plan => ({
  product: "trading",
  plan: "standard",
  name: "Standard",
  version: 2,
  latestVersion: 2,
  terms: { ...terms, ...changes },
  publishedAt: now,
  revision: 1n,
});
const price = (cycle: "month" | "year") => ({ currency: "USD", amountMinor: 120_000n, cycle });

function license(changes: Partial<PlanTerms> = {}): License {
  const wanted = {
    licenseId: "l1",
    customerId: "c1",
    product: "trading",
    graceDays: 3,
    autoRenew: false,
    metadata: {},
  };
  return planLicense({ ...wanted, validFrom: now, now }, plan(changes));
}

function endless(changes: Partial<PlanTerms> = {}): License {
  const { validUntil: _, ...rest } = license(changes);
  return rest;
}

describe("a license without end", () => {
  test("has nothing to be cancelled at, renewed from or extended from", () => {
    const refused = expect.objectContaining({ code: "FAILED_PRECONDITION", reason: "LICENSE_WITHOUT_END" });
    expect(() => cancel(endless(), true, "", now)).toThrow(refused);
    expect(() => renew(endless(), { from: "expiry", days: 0 }, terms, now)).toThrow(refused);
    expect(() => extendTrial(endless({ type: "trial" }), 5, now)).toThrow(refused);
  });

  test("can't renew itself, but be given an end", () => {
    expect(() => update(endless(), { autoRenew: true }, now)).toThrow("auto_renew: must be false");
    const renewed = renew(endless(), { from: "now", days: 0 }, terms, now);
    expect(renewed.validUntil).toEqual(new Date("2027-11-22T10:00:00Z"));
  });
});

describe("the billing cycle behind a change of plan", () => {
  test.each([
    ["is kept where the price allows it", "month", "year", undefined, "month"],
    ["is the price's own where it does not", "year", "month", undefined, "month"],
    ["is the one that is wanted", "year", "year", "month", "month"],
  ] as const)("%s", (_what, before, after, wanted, expected) => {
    const held = license({ price: price(before) });
    const changed = changePlan(
      held,
      plan({ price: price(after) }),
      { addOns: [], ...(wanted && { billingCycle: wanted }) },
      now,
    );
    expect(changed.billingCycle).toBe(expected);
  });

  test("is none where the plan costs nothing, and must fit where it does", () => {
    const held = license({ price: price("year") });
    expect(changePlan(held, plan(), { addOns: [] }, now).billingCycle).toBeUndefined();
    expect(() => changePlan(held, plan({ price: price("month") }), { billingCycle: "year", addOns: [] }, now)).toThrow(
      "billing_cycle",
    );
  });
});

test("from a trial to another trial the end stays; to a plan that is none a term begins", () => {
  const trial = license({ type: "trial", termDays: 30 });
  const later = new Date("2026-12-01T00:00:00Z");
  expect(changePlan(trial, plan({ type: "trial", termDays: 90 }), { addOns: [] }, later).validUntil).toEqual(
    trial.validUntil,
  );
  expect(changePlan(trial, plan(), { seats: 9, addOns: [] }, later)).toMatchObject({
    validFrom: later,
    validUntil: new Date("2027-12-01T00:00:00Z"),
    seats: 9,
    type: "standard",
  });
});

test("grace days that nobody can live to see are refused", () => {
  const last = { ...license(), validUntil: new Date("9999-12-30T00:00:00Z") };
  expect(() => update(last, { graceDays: 30 }, now)).toThrow("grace_days: must be earlier");
});

test("what a release that knew nothing of telling has changed is taken as it is", () => {
  const { told: _, ...untold } = license();
  expect(adopted(untold, now).told).toEqual({ status: "active", renewal: false });
  const suspended: License = { ...license(), decidedStatus: "suspended" };
  expect(adopted(suspended, now).told).toEqual({ status: "suspended", renewal: false });
});

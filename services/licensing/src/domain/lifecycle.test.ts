import { describe, expect, test } from "@jest/globals";
import type { Grant } from "./grant.ts";
import type { License } from "./license.ts";
import {
  activateFeature,
  cancel,
  changePlan,
  deactivateFeature,
  extendTrial,
  renew,
  revoke,
  transfer,
  update,
} from "./lifecycle.ts";
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
  grantable: [],
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

describe("grants", () => {
  const later = new Date("2026-12-01T00:00:00Z");
  const wanted = (feature: string, changes: Partial<Grant> = {}) => {
    return { feature, activatedBy: "key-1", onBehalfOf: "", configuration: "", ...changes };
  };
  const withGrants = (...features: string[]): License =>
    features.reduce((held, feature) => activateFeature(held, wanted(feature), ["*"], now), license());

  test("give a feature beyond the plan, by name; every one is a change of the license", () => {
    const held = withGrants("c", "b");
    expect(held.grants.map(({ feature, activatedAt }) => [feature, activatedAt])).toEqual([
      ["b", now],
      ["c", now],
    ]);
    expect(held).toMatchObject({ revision: 3n, features: ["a"] });
  });

  test("of a feature that is granted already get what is wanted now; only their beginning stays", () => {
    const expiresAt = new Date("2027-01-01T00:00:00Z");
    const first = wanted("b", { expiresAt, configuration: '{"x": 1}', onBehalfOf: "ada@example.com" });
    const held = activateFeature(license(), first, ["b"], now);
    const again = activateFeature(held, wanted("b", { activatedBy: "key-2" }), ["b"], later);
    expect(held.grants).toEqual([{ ...first, activatedAt: now }]);
    expect(again.grants).toEqual([{ ...wanted("b", { activatedBy: "key-2" }), activatedAt: now }]);
    const anew = activateFeature(deactivateFeature(held, "b", now), wanted("b"), ["b"], later);
    expect(anew.grants[0]?.activatedAt).toEqual(later);
  });

  test("are for the plan version to allow; a bare license may be granted all", () => {
    const refused = (grantable: string[]) => () => activateFeature(license(), wanted("b"), grantable, now);
    const reason = {
      code: "FAILED_PRECONDITION",
      reason: "GRANT_NOT_ALLOWED",
      metadata: { feature: "b", plan: "standard", plan_version: "2" },
    };
    expect(refused([])).toThrow(expect.objectContaining(reason));
    expect(refused(["a", "c"])).toThrow(expect.objectContaining(reason));
    expect(refused(["*"])()).toMatchObject({ grants: [{ feature: "b" }] });
    const { plan: _, ...bare } = license();
    expect(activateFeature(bare, wanted("b"), undefined, now).grants).toHaveLength(1);
  });

  test("end later than now, and are a hundred at most, with 32 KiB of configurations", () => {
    const at = (expiresAt: Date) => () => activateFeature(license(), wanted("b", { expiresAt }), ["*"], now);
    expect(at(now)).toThrow("expires_at: must be later than now");
    expect(at(new Date(now.getTime() + 1))().grants).toHaveLength(1);
    const full = withGrants(...Array.from({ length: 100 }, (_, index) => `f${index}`));
    const tooMany = { code: "FAILED_PRECONDITION", reason: "TOO_MANY_GRANTS" };
    expect(() => activateFeature(full, wanted("g"), ["*"], now)).toThrow(
      expect.objectContaining({ ...tooMany, metadata: { maximum: "100" } }),
    );
    expect(activateFeature(full, wanted("f7", { configuration: "{}" }), ["*"], now).grants).toHaveLength(100);
    const configuration = JSON.stringify({ x: "é".repeat(2_043) });
    expect(Buffer.byteLength(configuration)).toBe(4_094);
    const large = Array.from({ length: 8 }, (_, index) => wanted(`f${index}`, { configuration }));
    const heavy = large.reduce((held, grant) => activateFeature(held, grant, ["*"], now), license());
    expect(() => activateFeature(heavy, wanted("g", { configuration }), ["*"], now)).toThrow(
      expect.objectContaining({ ...tooMany, metadata: { maximum: "32768 bytes" } }),
    );
  });

  test("outlive a change of plan where the new plan has the feature or lets it be granted, a renewal and a transfer", () => {
    const held = withGrants("b", "c", "d");
    const onPlan = changePlan(held, plan({ features: ["b"], grantable: ["c"] }), { addOns: [] }, later);
    expect(onPlan.grants).toEqual(held.grants.slice(0, 2));
    expect(changePlan(held, plan({ features: ["*"] }), { addOns: [] }, later).grants).toEqual(held.grants);
    expect(changePlan(held, plan({ grantable: ["*"] }), { addOns: [] }, later).grants).toEqual(held.grants);
    expect(renew(held, { from: "expiry", days: 5 }, terms, later).grants).toEqual(held.grants);
    expect(transfer(held, "c2", later).grants).toEqual(held.grants);
  });

  test("are what can be deactivated, not what the plan has; and nothing of what ended for good", () => {
    const held = withGrants("a", "b");
    expect(deactivateFeature(held, "b", later).grants.map(({ feature }) => feature)).toEqual(["a"]);
    const without = deactivateFeature(held, "a", later);
    expect(() => deactivateFeature(without, "a", later)).toThrow(
      expect.objectContaining({
        code: "FAILED_PRECONDITION",
        reason: "FEATURE_IN_PLAN",
        metadata: { feature: "a", plan: "standard" },
      }),
    );
    expect(() => deactivateFeature(license({ features: ["*"] }), "b", later)).toThrow("by plan standard");
    const extra = { addOn: "x", version: 1, quantity: 1, features: ["e"], limits: [], seats: 0 };
    const sold = update(held, { addOns: [extra] }, later);
    expect(() => deactivateFeature(sold, "e", later)).toThrow("by an add-on to plan standard");
    expect(() => deactivateFeature(held, "e", later)).toThrow(
      expect.objectContaining({ code: "NOT_FOUND", reason: "GRANT_NOT_FOUND" }),
    );
    const { plan: _, ...bare } = license();
    expect(() => deactivateFeature(bare, "a", later)).toThrow("by terms of its own");
    const over = revoke(held, "", later);
    for (const attempt of [
      () => activateFeature(over, wanted("b"), ["*"], later),
      () => deactivateFeature(over, "b", later),
    ]) {
      expect(attempt).toThrow(expect.objectContaining({ reason: "TRANSITION_NOT_ALLOWED" }));
    }
  });
});

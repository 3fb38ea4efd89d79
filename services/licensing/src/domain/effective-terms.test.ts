import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import type { HeldAddOn } from "./add-on.ts";
import { checkAddOns, checkCurrency, effectiveTerms, type GivenTerms, withAddOns } from "./effective-terms.ts";
import type { Limit, LimitWindow, PlanTerms } from "./terms.ts";

const terabytes = (perUnit: bigint) => ({ metric: "data_volume_tb", window: "gauge" as const, perUnit });
const held = (changes: Partial<HeldAddOn> = {}): HeldAddOn => ({
  addOn: "extra",
  version: 1,
  quantity: 1,
  features: [],
  limits: [],
  seats: 0,
  ...changes,
});
const base: GivenTerms = {
  features: ["basic"],
  limits: [
    { metric: "data_volume_tb", window: "gauge", maximum: 3n, enforcement: "soft" },
    { metric: "api_calls", window: "per_month", maximum: 50_000n, enforcement: "hard" },
    { metric: "api_calls", window: "per_second", enforcement: "hard" },
  ],
  seats: 10,
};

describe("effectiveTerms", () => {
  test("units raise the limit of their metric and window, and the seats; features join", () => {
    const addOns = [
      held({ addOn: "tb", quantity: 2, limits: [terabytes(1n)] }),
      held({ addOn: "team", quantity: 3, seats: 5, features: ["basic", "reports"] }),
    ];
    expect(effectiveTerms(base, addOns)).toEqual({
      features: ["basic", "reports"],
      limits: [
        { metric: "data_volume_tb", window: "gauge", maximum: 5n, enforcement: "soft" },
        ...base.limits.slice(1),
      ],
      seats: 25,
    });
  });

  test("a license with * has no more by a feature, and one with unlimited seats none by seats", () => {
    const { seats: _, ...unlimited } = { ...base, features: ["*"] };
    const given = effectiveTerms(unlimited, [held({ features: ["reports"], seats: 5 })]);
    expect(given).toEqual(unlimited);
  });
});

const windows: LimitWindow[] = ["gauge", "per_second", "per_day", "per_month", "lifetime"];
const metrics = fc.constantFrom("users", "api_calls", "data_volume_tb");
const features = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d"));
const places = fc.record({ metric: metrics, window: fc.constantFrom(...windows) });
const placed = <T>(rest: Record<string, fc.Arbitrary<unknown>>) =>
  fc
    .uniqueArray(fc.tuple(places, fc.record(rest)), {
      selector: ([{ metric, window }]) => `${metric} ${window}`,
      maxLength: 6,
    })
    .map((all) => all.map(([place, values]) => ({ ...place, ...values }) as T));
const bases: fc.Arbitrary<GivenTerms> = fc
  .record({
    features: fc.oneof(features, fc.constant(["*"])),
    limits: placed<Limit>({
      maximum: fc.option(fc.bigInt({ min: 0n, max: 10n ** 12n }), { nil: undefined }),
      enforcement: fc.constantFrom("hard", "soft"),
    }),
    seats: fc.option(fc.nat(1_000), { nil: undefined }),
  })
  .map(({ seats, limits, ...rest }) => ({
    ...rest,
    limits: limits.map(({ maximum, ...limit }) => ({ ...limit, ...(maximum !== undefined && { maximum }) })),
    ...(seats !== undefined && { seats }),
  }));
const addOn: fc.Arbitrary<HeldAddOn> = fc.record({
  addOn: fc.constantFrom("x", "y", "z"),
  version: fc.constant(1),
  quantity: fc.integer({ min: 1, max: 50 }),
  features,
  limits: placed<HeldAddOn["limits"][number]>({ perUnit: fc.bigInt({ min: 1n, max: 10n ** 6n }) }),
  seats: fc.nat(20),
});
const addOns = fc.array(addOn, { maxLength: 4 });
/** Features are a set, whatever the order in which they are told. */
const asSet = (terms: GivenTerms) => ({ ...terms, features: [...terms.features].sort() });

describe("for every license and all add-ons", () => {
  test("nothing is taken away: features stay, maxima and seats never fall, what is unlimited stays so", () => {
    fc.assert(
      fc.property(bases, addOns, (before, held) => {
        const after = effectiveTerms(before, held);
        expect(after.features).toEqual(expect.arrayContaining([...before.features]));
        expect(after.limits.map(({ maximum: _, ...rest }) => rest)).toEqual(
          before.limits.map(({ maximum: _, ...rest }) => rest),
        );
        for (const [index, { maximum }] of before.limits.entries()) {
          const raised = after.limits[index]?.maximum;
          if (maximum === undefined) expect(raised).toBeUndefined();
          else expect(raised).toBeGreaterThanOrEqual(maximum);
        }
        if (before.seats === undefined) expect(after.seats).toBeUndefined();
        else expect(after.seats).toBeGreaterThanOrEqual(before.seats);
      }),
    );
  });

  test("each unit adds what one adds, in whatever order and however many at a time", () => {
    fc.assert(
      fc.property(bases, addOns, (before, held) => {
        const oneByOne = held
          .flatMap((one) => Array.from({ length: one.quantity }, () => ({ ...one, quantity: 1 })))
          .reduceRight((terms, unit) => effectiveTerms(terms, [unit]), before);
        expect(asSet(effectiveTerms(before, held))).toEqual(asSet(oneByOne));
        expect(asSet(effectiveTerms(before, [...held].reverse()))).toEqual(asSet(oneByOne));
      }),
    );
  });

  test("a license keeps its own terms apart: without its add-ons it is what it was", () => {
    fc.assert(
      fc.property(bases, addOns, (before, held) => {
        const { base: kept } = withAddOns(before, held);
        expect(withAddOns(kept, [])).toEqual({ ...before, base: before, addOns: [] });
        expect(withAddOns(before, held).addOns.map(({ addOn }) => addOn)).toEqual(
          held.map(({ addOn }) => addOn).sort(),
        );
      }),
    );
  });
});

describe("checkAddOns", () => {
  test.each([
    [
      "a metric that is unlimited",
      { limits: [{ ...terabytes(1n), metric: "api_calls", window: "per_second" }] },
      "add_ons[1].add_on",
    ],
    ["a metric that has no limit", { limits: [{ ...terabytes(1n), metric: "users" }] }, "add_ons[1].add_on"],
    ["a window that has no limit", { limits: [{ ...terabytes(1n), window: "per_day" }] }, "add_ons[1].add_on"],
    ["more seats than a number holds", { seats: 1_000_000, quantity: 1_000_000 }, "add_ons[1].quantity"],
  ] as const)("%s is refused", (_what, changes, field) => {
    const addOns = [held({ addOn: "tb", limits: [terabytes(1n)] }), held(changes as never)];
    expect(() => checkAddOns(base, addOns, "add_ons")).toThrow(field);
  });

  test("more than a limit can be is refused, and the largest that it can be is not", () => {
    const most = 2n ** 63n - 1n;
    const limits: Limit[] = [{ metric: "data_volume_tb", window: "gauge", maximum: most - 5n, enforcement: "hard" }];
    const check = (quantity: number) =>
      checkAddOns({ ...base, limits }, [held({ quantity, limits: [terabytes(1n)] })], "add_ons");
    expect(() => check(5)).not.toThrow();
    expect(() => check(6)).toThrow("add_ons[0].quantity");
  });

  test("seats are refused where they are unlimited", () => {
    const { seats: _, ...unlimited } = base;
    expect(() => checkAddOns(unlimited, [held({ seats: 1 })], "add_ons")).toThrow("add_ons[0].add_on");
  });
});

test("checkCurrency wants the plan's currency, and one also where the plan has no price", () => {
  const terms: PlanTerms = {
    type: "standard",
    features: base.features,
    limits: base.limits,
    price: { currency: "USD", amountMinor: 1n, cycle: "year" },
    usagePrices: [],
    termDays: 0,
    grantable: [],
    attributes: {},
  };
  const yearly = (currency: string) => ({ currency, amountMinor: 100n, cycle: "year" as const });

  const both = [held({ price: yearly("USD") }), held({ addOn: "y", price: yearly("EUR") })];
  expect(() => checkCurrency(both, terms, "add_ons")).toThrow("add_ons[1].price.currency: must be USD");
  const { price: _, ...free } = terms;
  expect(() => checkCurrency(both, free, "add_ons")).toThrow("add_ons[1].price.currency: must be USD");
  expect(() => checkCurrency(both.slice(1), terms, "add_ons")).toThrow("add_ons[0].price.currency: must be USD");
  expect(() => checkCurrency(both.slice(1), free, "add_ons")).not.toThrow();
});

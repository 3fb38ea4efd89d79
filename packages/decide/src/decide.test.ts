import { describe, expect, test } from "@jest/globals";
import { type Decision, decide, type Facts, type Outcome, type Question, type Reason } from "./decide.ts";
import type { Catalog, License, Limit, Usage, UsageLevel } from "./entitlement.ts";

const day = 86_400_000;
const now = Date.parse("2030-06-01T00:00:00Z");

const trading: Catalog = {
  tenant: "tradsys",
  product: "trading",
  version: 1n,
  features: new Map([
    ["basic_trading", { reduceOnly: true, failGraceMs: 0 }],
    ["egx_access", { reduceOnly: false, failGraceMs: 60_000 }],
  ]),
};
const research: Catalog = {
  tenant: "tradsys",
  product: "research",
  version: 1n,
  features: new Map([["reports", { reduceOnly: false, failGraceMs: 300_000 }]]),
};
const catalogs = new Map([trading, research].map((catalog) => [catalog.product, catalog]));

function license(overrides: Partial<License> = {}): License {
  return {
    id: "l1",
    type: "STANDARD",
    product: "trading",
    plan: "standard",
    planVersion: 1,
    status: "ACTIVE",
    features: new Set(["basic_trading"]),
    grants: new Map(),
    limits: [],
    addOns: [],
    validFromMs: now - 100 * day,
    validUntilMs: now + 100 * day,
    graceDays: 0,
    endedAtMs: undefined,
    ...overrides,
  };
}

function limit(metric: string, maximum: bigint | undefined, overrides: Partial<Limit> = {}): Limit {
  return { metric, maximum, window: "GAUGE", enforcement: "HARD", ...overrides };
}

function ask(
  licenses: readonly License[] | undefined,
  overrides: Partial<Question> = {},
  overdueMs = Number.NEGATIVE_INFINITY,
  usage?: Usage,
): Outcome {
  const facts: Facts = {
    snapshot: licenses && { tenant: "tradsys", customerId: "nile-brokers", version: 7n, licenses },
    catalogs,
    usage,
    overdueMs,
  };
  const question: Question = {
    customerId: "nile-brokers",
    feature: "basic_trading",
    product: undefined,
    values: new Map(),
    ...overrides,
  };
  return decide(question, facts, now);
}

function values(record: Record<string, string>): Pick<Question, "values"> {
  return { values: new Map(Object.entries(record)) };
}

describe("one license", () => {
  const ended = { endedAtMs: now - day };
  const over = { validUntilMs: now - 2 * day };
  const cases: readonly [string, Partial<License>, Decision, Reason, string[]][] = [
    ["in force", {}, "ALLOW", "ALLOWED", []],
    ["without an end", { validUntilMs: undefined }, "ALLOW", "ALLOWED", []],
    ["past due", { status: "PAST_DUE" }, "ALLOW", "ALLOWED_PAST_DUE", []],
    ["in grace", { ...over, graceDays: 3 }, "ALLOW", "ALLOWED_IN_GRACE", []],
    [
      "revoked",
      { status: "REVOKED", ...ended },
      "DENY",
      "LICENSE_REVOKED",
      [
        'The license of customer "nile-brokers" for product "trading", plan "standard", was revoked on 2030-05-31 00:00 UTC.',
      ],
    ],
    [
      "suspended",
      { status: "SUSPENDED" },
      "ALLOW_REDUCE_ONLY",
      "LICENSE_SUSPENDED",
      [
        'The license of customer "nile-brokers" for product "trading", plan "standard", is suspended.',
        'Feature "basic_trading" may only be used to reduce what is open.',
      ],
    ],
    [
      "expired without grace",
      { ...over, plan: undefined },
      "ALLOW_REDUCE_ONLY",
      "LICENSE_EXPIRED",
      [
        'The license of customer "nile-brokers" for product "trading" expired on 2030-05-30 00:00 UTC.',
        'Feature "basic_trading" may only be used to reduce what is open.',
      ],
    ],
    [
      "expired after its grace",
      { ...over, graceDays: 1, features: new Set(["egx_access"]) },
      "DENY",
      "LICENSE_EXPIRED",
      [
        'The license of customer "nile-brokers" for product "trading", plan "standard", expired on 2030-05-30 00:00 UTC; its grace ended on 2030-05-31 00:00 UTC.',
      ],
    ],
    [
      "cancelled",
      { status: "CANCELLED", ...ended },
      "DENY",
      "LICENSE_CANCELLED",
      [
        'The license of customer "nile-brokers" for product "trading", plan "standard", was cancelled on 2030-05-31 00:00 UTC.',
      ],
    ],
    [
      "that begins later",
      { validFromMs: now + day },
      "DENY",
      "LICENSE_NOT_YET_VALID",
      [
        'The license of customer "nile-brokers" for product "trading", plan "standard", begins on 2030-06-02 00:00 UTC.',
      ],
    ],
  ];

  test.each(cases)("%s", (_name, overrides, decision, reason, violations) => {
    const own = license(overrides);
    const outcome = ask([own], { feature: own.features.has("egx_access") ? "egx_access" : "basic_trading" });
    expect(outcome).toMatchObject({ decision, reason, violations });
    expect(outcome.deciding?.license).toBe(own);
  });

  test("that does not give a feature of its product", () => {
    expect(ask([license()], { feature: "egx_access" })).toMatchObject({
      decision: "DENY",
      reason: "FEATURE_NOT_IN_PLAN",
      violations: [
        'Feature "egx_access" is not in plan "standard" of product "trading", which customer "nile-brokers" has.',
      ],
    });
  });

  test("`*` gives all features of its own product, and of no other", () => {
    const all = license({ features: new Set(["*"]) });
    expect(ask([all], { feature: "egx_access" }).decision).toBe("ALLOW");
    expect(ask([all], { feature: "reports" }).reason).toBe("FEATURE_NOT_IN_PLAN");
  });

  test("gives a feature that it lists itself, though the catalogue does not know it", () => {
    expect(ask([license({ features: new Set(["beta"]) })], { feature: "beta" }).decision).toBe("ALLOW");
  });

  test("lets nobody reduce with a feature that it never gave", () => {
    const suspended = license({ status: "SUSPENDED", features: new Set(["egx_access"]) });
    expect(ask([suspended], { feature: "basic_trading" })).toMatchObject({
      decision: "DENY",
      reason: "LICENSE_SUSPENDED",
    });
  });
});

describe("a granted feature", () => {
  const configuration = '{"venues": 3}';
  const granted = (expiresAtMs?: number, overrides: Partial<License> = {}) =>
    license({ grants: new Map([["egx_access", { expiresAtMs, configuration }]]), ...overrides });
  const over = { validUntilMs: now - 2 * day };

  const cases: readonly [string, License, Decision, Reason][] = [
    ["without an end", granted(), "ALLOW", "ALLOWED"],
    ["a millisecond before its end", granted(now + 1), "ALLOW", "ALLOWED"],
    ["at its end, which is excluded", granted(now), "DENY", "FEATURE_NOT_IN_PLAN"],
    ["behind its end, which the plan has too", granted(now, { features: new Set(["egx_access"]) }), "ALLOW", "ALLOWED"],
    ["behind its end, of a license with *", granted(now, { features: new Set(["*"]) }), "ALLOW", "ALLOWED"],
    ["of a license past due", granted(undefined, { status: "PAST_DUE" }), "ALLOW", "ALLOWED_PAST_DUE"],
    ["of a license in grace", granted(undefined, { ...over, graceDays: 3 }), "ALLOW", "ALLOWED_IN_GRACE"],
    ["of a license that is over", granted(undefined, over), "DENY", "LICENSE_EXPIRED"],
    ["of a suspended license", granted(undefined, { status: "SUSPENDED" }), "DENY", "LICENSE_SUSPENDED"],
    ["of a revoked license", granted(undefined, { status: "REVOKED" }), "DENY", "LICENSE_REVOKED"],
    ["of a license that begins later", granted(undefined, { validFromMs: now + 1 }), "DENY", "LICENSE_NOT_YET_VALID"],
  ];

  test.each(cases)("%s", (_name, own, decision, reason) => {
    expect(ask([own], { feature: "egx_access" })).toMatchObject({ decision, reason, deciding: { license: own } });
  });

  test("is told with its end and configuration, also where the plan has it, and never with a denial", () => {
    const grantIn = (own: License, overrides = {}) => ask([own], { feature: "egx_access", ...overrides }).grant;
    expect(grantIn(granted(now + day))).toEqual({ expiresAtMs: now + day, configuration });
    expect(grantIn(granted(now + day, { features: new Set(["*"]) }))).toEqual({
      expiresAtMs: now + day,
      configuration,
    });
    expect(grantIn(granted(now, { features: new Set(["*"]) }))).toBeUndefined();
    expect(grantIn(granted(now + day), { feature: "basic_trading" })).toBeUndefined();
    expect(grantIn(granted(undefined, { limits: [limit("users", 1n)] }), values({ users: "2" }))).toBeUndefined();
    expect(grantIn(granted(undefined, { status: "REVOKED" }))).toBeUndefined();
  });

  test("is bound by the limits of its license, and by the fail mode of the feature", () => {
    const limited = granted(undefined, { limits: [limit("users", 50n)] });
    const asked = { feature: "egx_access", ...values({ users: "51" }) };
    expect(ask([limited], asked)).toMatchObject({ decision: "DENY", reason: "LIMIT_EXCEEDED" });
    expect(ask([granted()], { feature: "egx_access" }, 59_999).decision).toBe("ALLOW");
    expect(ask([granted()], { feature: "egx_access" }, 60_000)).toMatchObject({
      decision: "DENY",
      reason: "FACTS_TOO_OLD",
      grant: undefined,
    });
  });

  test("may still reduce what is open where the feature says so, while the grant lasts", () => {
    const suspended = (expiresAtMs?: number) =>
      license({
        status: "SUSPENDED",
        features: new Set(),
        grants: new Map([["basic_trading", { expiresAtMs, configuration }]]),
      });
    expect(ask([suspended(now + 1)])).toMatchObject({ decision: "ALLOW_REDUCE_ONLY", grant: { configuration } });
    expect(ask([suspended(now)])).toMatchObject({ decision: "DENY", reason: "LICENSE_SUSPENDED" });
  });

  test("that no catalogue knows yet is given all the same, and a grant that is over is told", () => {
    const beta = license({ grants: new Map([["beta", { expiresAtMs: undefined, configuration: "" }]]) });
    expect(ask([beta], { feature: "beta" }).decision).toBe("ALLOW");
    expect(ask([granted(now - day)], { feature: "egx_access" }).violations).toEqual([
      'Feature "egx_access" is not in plan "standard" of product "trading", which customer "nile-brokers" has.',
      'The grant of feature "egx_access" ended on 2030-05-31 00:00 UTC.',
    ]);
  });

  test("counts for the license that has it, and for no other", () => {
    const other = license({ id: "l2" });
    expect(ask([other, granted()], { feature: "egx_access" }).deciding?.license.id).toBe("l1");
    expect(ask([other], { feature: "egx_access" }).reason).toBe("FEATURE_NOT_IN_PLAN");
  });
});

describe("no license", () => {
  test("an unknown customer, a customer without licenses, and one without a license of the product differ", () => {
    const reason = "NO_LICENSE";
    expect(ask(undefined)).toMatchObject({ reason, violations: ['Customer "nile-brokers" is unknown.'] });
    expect(ask([])).toMatchObject({ reason, violations: ['Customer "nile-brokers" holds no license.'] });
    expect(ask([license()], { product: "research" })).toMatchObject({
      reason,
      violations: ['Customer "nile-brokers" holds no license for product "research".'],
    });
  });

  test("a feature that no product has, and one of a product that is not licensed, differ", () => {
    const reason = "FEATURE_NOT_IN_PLAN";
    expect(ask([license()], { feature: "teleport" })).toMatchObject({
      reason,
      deciding: undefined,
      violations: ['No product has a feature "teleport".'],
    });
    expect(ask([license()], { feature: "reports" })).toMatchObject({
      reason,
      deciding: undefined,
      violations: ['Feature "reports" is not part of what is licensed: product "trading".'],
    });
  });
});

describe("limits", () => {
  const limited = license({
    limits: [
      limit("users", 50n),
      limit("orders", 10n, { window: "PER_SECOND" }),
      limit("api_calls", 1_000n, { window: "PER_DAY", enforcement: "SOFT" }),
      limit("exports", undefined),
    ],
  });

  test("a value at the maximum is allowed, only above it violates", () => {
    expect(ask([limited], values({ users: "50" })).reason).toBe("ALLOWED");
    expect(ask([limited], values({ users: "50.000" })).reason).toBe("ALLOWED");
    expect(ask([limited], values({ users: "50.000000000000000000000001" })).reason).toBe("LIMIT_EXCEEDED");
  });

  test("every violation is told, in numbers and in a sentence", () => {
    const outcome = ask([limited], values({ users: "51", orders: "11", api_calls: "2000" }));
    expect(outcome).toMatchObject({ decision: "DENY", reason: "LIMIT_EXCEEDED" });
    expect(outcome.exceeded.map(({ limit: { metric }, current, maximum }) => [metric, current, maximum])).toEqual([
      ["users", "51", 50n],
      ["orders", "11", 10n],
      ["api_calls", "2000", 1_000n],
    ]);
    expect(outcome.violations).toEqual([
      '"users" would be 51, above the limit of 50 in plan "standard" of product "trading".',
      '"orders" would be 11 per second, above the limit of 10 per second in plan "standard" of product "trading".',
      '"api_calls" would be 2000 per day, above the soft limit of 1000 per day in plan "standard" of product "trading".',
    ]);
  });

  test("a soft limit is told and allows", () => {
    const outcome = ask([limited], values({ api_calls: "1001" }));
    expect(outcome).toMatchObject({ decision: "ALLOW", reason: "ALLOWED" });
    expect(outcome.exceeded).toHaveLength(1);
    expect(outcome.violations).toHaveLength(1);
  });

  test("no maximum, no violation; a value that no limit counts is ignored", () => {
    expect(ask([limited], values({ exports: "999999999999999999999" })).reason).toBe("ALLOWED");
    expect(ask([limited], values({ region: "EG", seats: "none" })).reason).toBe("ALLOWED");
  });

  test.each(["", "fifty", "1e9", "0x10", "5.", ".5", "+5", " 5", "1,000", "Infinity", "NaN"])(
    "the value %j is refused, naming it",
    (value) => {
      expect(() => ask([limited], values({ users: value }))).toThrow(
        expect.objectContaining({ name: "InvalidValueError", field: 'context["users"]' }),
      );
    },
  );
});

describe("usage", () => {
  const monthStart = Date.parse("2030-06-01T00:00:00Z");
  const limited = license({
    limits: [
      limit("api_calls", 1_000n, { window: "PER_MONTH" }),
      limit("api_calls", 10n, { window: "PER_SECOND" }),
      limit("exports", 5n, { window: "LIFETIME", enforcement: "SOFT" }),
    ],
  });
  const counter = (used: string, overrides: Partial<UsageLevel> = {}): UsageLevel => {
    return { window: "PER_MONTH", licenseId: undefined, windowStartMs: monthStart, used, ...overrides };
  };
  const used = (...counters: UsageLevel[]): Usage => ({ levels: new Map([["api_calls", counters]]), asOfMs: now });
  const answer = (usage: Usage | undefined, overrides: Partial<Question> = {}) =>
    ask([limited], overrides, Number.NEGATIVE_INFINITY, usage);

  test("up to a hard limit denies until the count begins anew, and says so", () => {
    expect(answer(used(counter("999.999")))).toMatchObject({ reason: "ALLOWED", violations: [], comparedUsage: true });
    const outcome = answer(used(counter("1000")));
    expect(outcome).toMatchObject({ decision: "DENY", reason: "LIMIT_EXCEEDED", holdsUntilMs: Date.UTC(2030, 6) });
    expect(outcome.exceeded).toMatchObject([{ current: "1000", source: "USAGE", resetsAtMs: Date.UTC(2030, 6) }]);
    expect(outcome.violations).toEqual([
      '"api_calls" is used up: 1000 of the limit of 1000 per month in plan "standard" of product "trading"; the count begins anew on 2030-07-01 00:00 UTC.',
    ]);
  });

  test("of a window that is over counts nothing; one that has not begun by our clock counts", () => {
    const lastMonth = counter("1000", { windowStartMs: Date.UTC(2030, 4) });
    const nextMonth = counter("1000", { windowStartMs: Date.UTC(2030, 6) });
    expect(answer(used(lastMonth)).reason).toBe("ALLOWED");
    expect(answer(used(nextMonth)).reason).toBe("LIMIT_EXCEEDED");
  });

  test("counts by the license that it names, and for each where it names none", () => {
    const ours = counter("600", { licenseId: "l1" });
    const anybodys = counter("400");
    expect(answer(used(ours, anybodys)).exceeded).toMatchObject([{ current: "1000" }]);
    expect(answer(used({ ...ours, licenseId: "l2" }, anybodys)).reason).toBe("ALLOWED");
  });

  test("up to a soft limit is told, and allows", () => {
    const exports: UsageLevel = { window: "LIFETIME", licenseId: undefined, windowStartMs: undefined, used: "7" };
    const outcome = answer({ levels: new Map([["exports", [exports]]]), asOfMs: now });
    expect(outcome).toMatchObject({ decision: "ALLOW", reason: "ALLOWED", holdsUntilMs: limited.validUntilMs });
    expect(outcome.violations).toEqual([
      '"exports" is used up: 7 of the soft limit of 5 over the life of the license in plan "standard" of product "trading".',
    ]);
  });

  test("gives way to a value of the context: of the metric, or of the one window that it names", () => {
    const full = used(counter("1000"));
    expect(answer(full, values({ api_calls: "10" }))).toMatchObject({ reason: "ALLOWED", comparedUsage: true });
    expect(answer(full, values({ "api_calls/per_month": "1000" }))).toMatchObject({ reason: "ALLOWED" });
    const rate = answer(full, values({ "api_calls/per_second": "11" }));
    expect(rate.exceeded.map(({ limit: { window }, source }) => [window, source])).toEqual([
      ["PER_MONTH", "USAGE"],
      ["PER_SECOND", "CONTEXT"],
    ]);
    expect(() => answer(full, values({ "api_calls/per_second": "many" }))).toThrow(
      expect.objectContaining({ field: 'context["api_calls/per_second"]' }),
    );
  });

  test("that nobody knows is compared with nothing", () => {
    expect(answer(undefined)).toMatchObject({ reason: "ALLOWED", comparedUsage: false });
  });
});

describe("several licenses", () => {
  const revoked = license({ id: "revoked", status: "REVOKED" });
  const active = license({ id: "active" });

  test("any one that allows, allows", () => {
    expect(ask([revoked, active])).toMatchObject({ decision: "ALLOW", violations: [], deciding: { license: active } });
  });

  test("each keeps its own limits", () => {
    const small = license({ id: "small", limits: [limit("users", 5n)] });
    const large = license({ id: "large", limits: [limit("users", 50n), limit("orders", 1n)] });
    expect(ask([small, large], values({ users: "20" })).deciding?.license).toBe(large);
    expect(ask([small, large], values({ users: "4", orders: "9" })).deciding?.license).toBe(small);
    expect(ask([small, large], values({ users: "20", orders: "9" }))).toMatchObject({ reason: "LIMIT_EXCEEDED" });
  });

  test("context.product narrows the question", () => {
    const other = license({ product: "research", features: new Set(["basic_trading"]), status: "SUSPENDED" });
    expect(ask([active, other], { product: "research" }).reason).toBe("LICENSE_SUSPENDED");
    expect(ask([active, other], { product: "trading" }).reason).toBe("ALLOWED");
  });

  test("the told reason comes first, the others behind it", () => {
    const suspended = license({ status: "SUSPENDED", product: "research", plan: undefined });
    const outcome = ask([suspended, license({ status: "REVOKED" })], { feature: "basic_trading" });
    expect(outcome.reason).toBe("LICENSE_REVOKED");
    expect(outcome.violations).toHaveLength(2);
    expect(outcome.violations[1]).toContain("is suspended");
  });

  test("one that lets reduce counts more than one that denies", () => {
    const suspended = license({ status: "SUSPENDED" });
    expect(ask([revoked, suspended])).toMatchObject({
      decision: "ALLOW_REDUCE_ONLY",
      reason: "LICENSE_SUSPENDED",
      deciding: { license: suspended },
    });
  });
});

describe("facts that are too old", () => {
  const held = [license({ features: new Set(["basic_trading", "egx_access", "reports"]) })];
  const answer = (feature: string, overdueMs: number) => {
    const { decision, reason } = ask(held, { feature }, overdueMs);
    return [decision, reason];
  };

  // basic_trading is closed, egx_access has 60 s of grace, reports is in no catalogue of the product: 300 s.
  test.each([
    ["basic_trading", -1, 0],
    ["egx_access", 59_999, 60_000],
    ["reports", 299_999, 300_000],
  ])("allow %s until its fail mode ends, not a millisecond longer", (feature, last, first) => {
    expect(answer(feature, last)).toEqual(["ALLOW", "ALLOWED"]);
    expect(answer(feature, first)).toEqual(["DENY", "FACTS_TOO_OLD"]);
  });

  test("say so, and what would help", () => {
    expect(ask(held, { feature: "basic_trading" }, 0).violations).toEqual([
      'What is known about customer "nile-brokers" is too old to allow feature "basic_trading", and licensing can\'t be asked; try again.',
    ]);
  });

  test("leave a denial as it is, in any mode", () => {
    const revoked = [license({ status: "REVOKED" })];
    for (const overdueMs of [-1, 0, 1e9]) {
      expect(ask(revoked, {}, overdueMs)).toMatchObject({ decision: "DENY", reason: "LICENSE_REVOKED" });
      expect(ask(undefined, {}, overdueMs)).toMatchObject({ decision: "DENY", reason: "NO_LICENSE" });
    }
  });

  test("let nobody reduce either, once the grace is over", () => {
    const suspended = [license({ status: "SUSPENDED" })];
    expect(ask(suspended, {}, -1)).toMatchObject({ decision: "ALLOW_REDUCE_ONLY" });
    expect(ask(suspended, {}, 0)).toMatchObject({ decision: "DENY", reason: "FACTS_TOO_OLD" });
  });

  test("are judged by the product of each license", () => {
    const both = [license(), license({ id: "l2", product: "research" })];
    // In `research` nothing is said about basic_trading: 300 s.
    expect(ask(both, {}, 200_000)).toMatchObject({ decision: "ALLOW", deciding: { license: { id: "l2" } } });
    expect(ask(both, {}, 300_000)).toMatchObject({ decision: "DENY", reason: "FACTS_TOO_OLD" });
  });
});

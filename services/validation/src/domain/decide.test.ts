import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { type Decision, decide, type Facts, type Outcome, type Question, type Reason } from "./decide.ts";
import type { Catalog, Grant, License, LicenseStatus, Limit } from "./entitlement.ts";

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
    status: "ACTIVE",
    features: new Set(["basic_trading"]),
    grants: new Map(),
    limits: [],
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
): Outcome {
  const facts: Facts = {
    snapshot: licenses && { tenant: "tradsys", customerId: "nile-brokers", version: 7n, licenses },
    catalogs,
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
        expect.objectContaining({
          code: "INVALID_ARGUMENT",
          reason: "INVALID_FIELD",
          violations: [expect.objectContaining({ field: 'context["users"]' })],
        }),
      );
    },
  );
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

/**
 * The rules once more, slowly: reasons are tried one after the other, and for
 * each the licenses are searched for one that it fits.
 */
function reference(question: Question, licenses: readonly License[] | undefined): [Decision, Reason, string?] {
  const { feature, product } = question;
  const offering = (own: License) => catalogs.get(own.product)?.features.has(feature) ?? false;
  const granted = (own: License) => {
    const grant = own.grants.get(feature);
    return grant !== undefined && (grant.expiresAtMs ?? Number.POSITIVE_INFINITY) > now;
  };
  const gives = (own: License) => own.features.has(feature) || (own.features.has("*") && offering(own)) || granted(own);
  const begun = (own: License) => own.validFromMs <= now;
  const ended = (own: License) => own.validUntilMs !== undefined && own.validUntilMs <= now;
  const graceOver = (own: License) => ended(own) && (own.validUntilMs ?? 0) + own.graceDays * day <= now;
  const fixed = (own: License) => ["REVOKED", "SUSPENDED", "CANCELLED"].includes(own.status);
  const expired = (own: License) => !fixed(own) && begun(own) && graceOver(own);
  const inForce = (own: License) => !fixed(own) && begun(own) && !graceOver(own);
  const exceeds = (own: License) =>
    own.limits.some(({ metric, maximum, enforcement }) => {
      const value = question.values.get(metric);
      return enforcement === "HARD" && value !== undefined && maximum !== undefined && BigInt(value) > maximum;
    });
  const allows = (own: License) => inForce(own) && gives(own) && !exceeds(own);
  const reduces = (own: License) =>
    gives(own) && (catalogs.get(own.product)?.features.get(feature)?.reduceOnly ?? false);

  const table: readonly [Decision, Reason, (own: License) => boolean][] = [
    ["ALLOW", "ALLOWED", (own) => allows(own) && !ended(own) && own.status !== "PAST_DUE"],
    ["ALLOW", "ALLOWED_PAST_DUE", (own) => allows(own) && !ended(own)],
    ["ALLOW", "ALLOWED_IN_GRACE", allows],
    ["ALLOW_REDUCE_ONLY", "LICENSE_SUSPENDED", (own) => own.status === "SUSPENDED" && reduces(own)],
    ["ALLOW_REDUCE_ONLY", "LICENSE_EXPIRED", (own) => expired(own) && reduces(own)],
    ["DENY", "LICENSE_REVOKED", (own) => own.status === "REVOKED"],
    ["DENY", "LICENSE_SUSPENDED", (own) => own.status === "SUSPENDED"],
    ["DENY", "LICENSE_EXPIRED", expired],
    ["DENY", "LICENSE_CANCELLED", (own) => own.status === "CANCELLED"],
    ["DENY", "LICENSE_NOT_YET_VALID", (own) => !begun(own)],
    ["DENY", "LIMIT_EXCEEDED", (own) => gives(own) && exceeds(own)],
    ["DENY", "FEATURE_NOT_IN_PLAN", () => true],
  ];
  const held = (licenses ?? []).filter((own) => product === undefined || own.product === product);
  if (held.length === 0) return ["DENY", "NO_LICENSE"];
  const candidates = held.filter((own) => own.features.has(feature) || own.grants.has(feature) || offering(own));
  for (const [decision, reason, fits] of table) {
    const found = candidates.find(fits);
    if (found !== undefined) return [decision, reason, found.id];
  }
  return ["DENY", "FEATURE_NOT_IN_PLAN"];
}

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

describe("properties", () => {
  const statuses: readonly LicenseStatus[] = [
    "PENDING",
    "ACTIVE",
    "PAST_DUE",
    "GRACE",
    "SUSPENDED",
    "EXPIRED",
    "CANCELLED",
    "REVOKED",
  ];
  const features = ["basic_trading", "egx_access", "reports", "teleport"] as const;
  const metrics = ["users", "orders"] as const;
  /** Days around now, so that every boundary is met exactly and often. */
  const nearNow = fc.integer({ min: -3, max: 3 }).map((days) => now + days * day);

  const anyLimit = fc.record<Limit>({
    metric: fc.constantFrom(...metrics),
    maximum: fc.option(fc.bigInt({ min: 0n, max: 3n }), { nil: undefined }),
    window: fc.constantFrom("GAUGE", "PER_DAY"),
    enforcement: fc.constantFrom("HARD", "SOFT"),
  });
  const anyGrants = fc
    .dictionary(
      fc.constantFrom(...features),
      fc.record<Grant>({ expiresAtMs: fc.option(nearNow, { nil: undefined }), configuration: fc.constant("{}") }),
    )
    .map((record) => new Map(Object.entries(record)));
  const anyLicense = fc.record<License>({
    id: fc.uuid(),
    type: fc.constant("STANDARD"),
    product: fc.constantFrom("trading", "research", "unlisted"),
    plan: fc.option(fc.constant("standard"), { nil: undefined }),
    status: fc.constantFrom(...statuses),
    features: fc.uniqueArray(fc.constantFrom(...features, "*")).map((codes) => new Set<string>(codes)),
    grants: anyGrants,
    limits: fc.array(anyLimit, { maxLength: 3 }),
    validFromMs: nearNow,
    validUntilMs: fc.option(nearNow, { nil: undefined }),
    graceDays: fc.integer({ min: 0, max: 2 }),
    endedAtMs: fc.option(nearNow, { nil: undefined }),
  });
  const anyQuestion = fc.record({
    feature: fc.constantFrom(...features),
    product: fc.option(fc.constantFrom("trading", "research", "nothing"), { nil: undefined }),
    values: fc
      .dictionary(fc.constantFrom(...metrics), fc.integer({ min: 0, max: 4 }).map(String))
      .map((record) => new Map(Object.entries(record))),
  });
  const anyLicenses = fc.option(fc.array(anyLicense, { maxLength: 4 }), { nil: undefined });

  test("decide agrees with the slow reading of the rules", () => {
    fc.assert(
      fc.property(anyLicenses, anyQuestion, (licenses, question) => {
        const outcome = ask(licenses, question);
        const expected = reference({ customerId: "nile-brokers", ...question }, licenses);
        expect([outcome.decision, outcome.reason, outcome.deciding?.license.id]).toEqual([
          expected[0],
          expected[1],
          expected[2],
        ]);
      }),
      { numRuns: 3_000 },
    );
  });

  test("another license never takes away what is allowed", () => {
    fc.assert(
      fc.property(fc.array(anyLicense, { maxLength: 4 }), anyLicense, anyQuestion, (licenses, more, question) => {
        if (ask(licenses, question).decision === "ALLOW") {
          expect(ask([...licenses, more], question).decision).toBe("ALLOW");
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test("a grant decides as if the license listed the feature, until its end", () => {
    fc.assert(
      fc.property(anyLicenses, anyQuestion, fc.integer({ min: -1, max: 400_000 }), (licenses, question, overdueMs) => {
        const outcome = ask(licenses, question, overdueMs);
        const listed = licenses?.map((own) => {
          const grant = own.grants.get(question.feature);
          if (grant === undefined) return own;
          const holds = grant.expiresAtMs === undefined || grant.expiresAtMs > now;
          return holds ? { ...own, grants: new Map(), features: new Set([...own.features, question.feature]) } : own;
        });
        const same = ask(listed, question, overdueMs);
        expect([outcome.decision, outcome.reason, outcome.deciding?.license.id, outcome.violations]).toEqual([
          same.decision,
          same.reason,
          same.deciding?.license.id,
          same.violations,
        ]);
        const told = outcome.deciding?.license.grants.get(question.feature);
        const usable = outcome.decision !== "DENY" && (told?.expiresAtMs ?? Number.POSITIVE_INFINITY) > now;
        expect(outcome.grant).toBe(usable ? told : undefined);
      }),
      { numRuns: 2_000 },
    );
  });

  test("older facts never allow more, and change nothing but allowances", () => {
    fc.assert(
      fc.property(anyLicenses, anyQuestion, fc.nat(400_000), fc.nat(400_000), (licenses, question, age, more) => {
        const [fresh, old, older] = [-1, age, age + more].map((overdueMs) => ask(licenses, question, overdueMs));
        if (fresh?.decision === "DENY") expect([old, older]).toEqual([fresh, fresh]);
        if (old?.decision === "DENY") expect(older?.decision).toBe("DENY");
        if (old?.decision !== "DENY") expect(fresh?.decision).not.toBe("DENY");
      }),
      { numRuns: 1_000 },
    );
  });

  test("whatever is not a plain yes is explained, and a plain yes within its limits is not", () => {
    fc.assert(
      fc.property(anyLicenses, anyQuestion, (licenses, question) => {
        const outcome = ask(licenses, question);
        if (outcome.decision === "ALLOW") expect(outcome.violations).toHaveLength(outcome.exceeded.length);
        else expect(outcome.violations.length).toBeGreaterThan(0);
        for (const sentence of outcome.violations) expect(sentence).toMatch(/^["A-Z].*\.$/);
      }),
      { numRuns: 1_000 },
    );
  });
});

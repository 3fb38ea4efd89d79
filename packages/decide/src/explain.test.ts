import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { type Decision, decide, type Facts, type Question, type Reason } from "./decide.ts";
import type { License } from "./entitlement.ts";
import { type Explanation, explain, type Step } from "./explain.ts";
import { anyFacts, anyNow, anyQuestion, catalogs, day, origin } from "./testing/arbitrary.ts";

/** What the steps of one license come to, by the rule that `explain` documents. */
function read(steps: readonly Step[]): [Decision, Reason] {
  const all = (...subjects: string[]) => steps.filter(({ subject }) => subjects.includes(subject));
  const passed = (...subjects: string[]) => all(...subjects).every((step) => step.passed);
  const status = all("CLOCK")[0]?.facts.status;
  const gives = all("PLAN", "GRANT").some((step) => step.passed);
  const reduces = gives && all("POLICY")[0]?.facts.reduce_only === "true";
  const reasons: Readonly<Record<string, Reason>> = {
    REVOKED: "LICENSE_REVOKED",
    SUSPENDED: "LICENSE_SUSPENDED",
    EXPIRED: "LICENSE_EXPIRED",
    CANCELLED: "LICENSE_CANCELLED",
    PENDING: "LICENSE_NOT_YET_VALID",
    ACTIVE: "ALLOWED",
    PAST_DUE: "ALLOWED_PAST_DUE",
    GRACE: "ALLOWED_IN_GRACE",
  };
  const reason = reasons[status ?? ""] ?? "NO_LICENSE";
  let answer: [Decision, Reason] = ["DENY", reason];
  if (reduces && (status === "SUSPENDED" || status === "EXPIRED")) answer = ["ALLOW_REDUCE_ONLY", reason];
  if (passed("CLOCK") && !gives) answer = ["DENY", "FEATURE_NOT_IN_PLAN"];
  if (passed("CLOCK") && gives) answer = passed("LIMIT", "USAGE") ? ["ALLOW", reason] : ["DENY", "LIMIT_EXCEEDED"];
  return answer[0] === "DENY" || passed("POLICY") ? answer : ["DENY", "FACTS_TOO_OLD"];
}

/** The answer that an explanation tells: that of the first license that counts. */
function conclusion({ steps }: Explanation): [Decision, Reason, string | undefined] {
  const about = steps.filter(({ subject }) => subject === "LICENSE");
  const first = about.find(({ passed }) => passed)?.licenseId;
  if (first !== undefined) return [...read(steps.filter(({ licenseId }) => licenseId === first)), first];
  const asked = about.filter(({ facts }) => facts.set_aside_by !== "product");
  return ["DENY", asked.length === 0 ? "NO_LICENSE" : "FEATURE_NOT_IN_PLAN", undefined];
}

test("the steps come to the answer of decide, and no license among them to a better one", () => {
  const order: readonly Decision[] = ["ALLOW", "ALLOW_REDUCE_ONLY", "DENY"];
  fc.assert(
    fc.property(anyQuestion, anyFacts, anyNow, (question, facts, now) => {
      const { decision, reason, deciding } = decide(question, facts, now);
      const explanation = explain(question, facts, now);
      expect(conclusion(explanation)).toEqual([decision, reason, deciding?.license.id]);
      for (const { id } of facts.snapshot?.licenses ?? []) {
        const own = explanation.steps.filter(({ licenseId }) => licenseId === id);
        expect(own[0]?.subject).toBe("LICENSE");
        if (own[0]?.passed) expect(order.indexOf(read(own)[0])).toBeGreaterThanOrEqual(order.indexOf(decision));
      }
      expect(explanation.omittedSteps).toBe(0);
    }),
    { numRuns: 5_000 },
  );
});

describe("an explanation", () => {
  const license: License = {
    id: "l1",
    type: "STANDARD",
    product: "trading",
    plan: "standard",
    planVersion: 3,
    status: "ACTIVE",
    features: new Set(["basic_trading"]),
    grants: new Map([["egx_access", { expiresAtMs: origin + day, configuration: '{"venues": 3}' }]]),
    limits: [
      { metric: "users", maximum: 50n, window: "GAUGE", enforcement: "HARD" },
      { metric: "api_calls", maximum: 1_000n, window: "PER_DAY", enforcement: "HARD" },
      { metric: "orders", maximum: 10n, window: "PER_SECOND", enforcement: "HARD" },
      { metric: "exports", maximum: undefined, window: "PER_DAY", enforcement: "HARD" },
    ],
    addOns: [{ addOn: "middle-east", version: 2, quantity: 1 }],
    validFromMs: origin - day,
    validUntilMs: origin + 30 * day,
    graceDays: 0,
    endedAtMs: undefined,
  };
  const question: Question = {
    customerId: "nile-brokers",
    feature: "egx_access",
    product: "trading",
    values: new Map([["users", "51"]]),
  };
  const facts = (licenses: readonly License[]): Facts => ({
    snapshot: { tenant: "tradsys", customerId: "nile-brokers", version: 7n, licenses },
    catalogs,
    usage: {
      levels: new Map([["api_calls", [{ window: "PER_DAY", licenseId: "l1", windowStartMs: origin, used: "12" }]]]),
      asOfMs: origin - 1_500,
    },
    overdueMs: 4_000,
  });

  test("tells everything that was looked at, in sentences and in facts", () => {
    const other = { ...license, id: "l2", product: "research" };
    const { steps } = explain(question, facts([other, license]), origin);
    expect(steps.map(({ subject, licenseId, passed }) => [subject, licenseId, passed])).toEqual([
      ["CUSTOMER", undefined, true],
      ["LICENSE", "l1", true],
      ["CLOCK", "l1", true],
      ["PLAN", "l1", false],
      ["ADD_ON", "l1", true],
      ["GRANT", "l1", true],
      ["LIMIT", "l1", false],
      ["USAGE", "l1", true],
      ["LIMIT", "l1", true],
      ["POLICY", "l1", true],
      ["LICENSE", "l2", false],
    ]);
    expect(steps.map(({ sentence }) => sentence)).toEqual([
      'Customer "nile-brokers" holds 2 licenses, by entitlement version 7.',
      'The license for product "trading" counts: that product has feature "egx_access".',
      'The license of customer "nile-brokers" for product "trading", plan "standard", is in force until 2030-07-01 00:00 UTC.',
      'Version 3 of plan "standard" of product "trading" does not give "egx_access".',
      'It holds 1 of add-on "middle-east" in version 2; what that gives is in its features and limits.',
      'The grant of feature "egx_access" ends on 2030-06-02 00:00 UTC.',
      '"users" would be 51, above the limit of 50 in plan "standard" of product "trading".',
      '"api_calls" is at 12 per day, below the limit of 1000 per day in plan "standard" of product "trading".',
      'Limits of which no value is known are not compared: "orders" (10 per second).',
      'What is known has been too old for 4 s; from then on the feature is allowed for 60 s. Feature "egx_access" may not be used to reduce what is open when the license is suspended or expired.',
      'The license for product "research" does not count: the question is about product "trading".',
    ]);
    const found = (subject: string) => steps.find((one) => one.subject === subject)?.facts;
    expect(found("PLAN")).toEqual({ plan: "standard", plan_version: "3" });
    expect(found("CLOCK")).toMatchObject({ status: "ACTIVE", now: "2030-06-01T00:00:00.000Z" });
    expect(found("USAGE")).toEqual({
      metric: "api_calls",
      window: "PER_DAY",
      enforcement: "HARD",
      maximum: "1000",
      current: "12",
      exceeded: "false",
      resets_at: "2030-06-02T00:00:00.000Z",
      staleness_ms: "1500",
    });
    expect(found("POLICY")).toEqual({
      reduce_only: "false",
      fail_mode: "grace",
      fail_grace_ms: "60000",
      overdue_ms: "4000",
    });
  });

  test("of hundreds of licenses begins with what decided, and says how much it leaves out", () => {
    const many = Array.from({ length: 500 }, (_, index) => ({
      ...license,
      id: `l${index}`,
      status: "REVOKED" as const,
    }));
    const allowing = { ...license, id: "allowing", limits: [] };
    const { steps, omittedSteps } = explain(question, facts([...many, allowing]), origin);
    expect(steps).toHaveLength(300);
    expect(steps[1]?.licenseId).toBe("allowing");
    expect(omittedSteps).toBe(1 + 6 + 500 * 9 - 300);
  });
});

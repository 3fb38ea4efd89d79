import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { decide, type Facts, type Outcome, type Question } from "./decide.ts";
import type { License } from "./entitlement.ts";
import { anyFacts, anyLicense, anyNow, anyQuestion, day, origin } from "./testing/arbitrary.ts";
import { reference } from "./testing/reference.ts";

function withLicenses(facts: Facts, change: (licenses: readonly License[]) => readonly License[]): Facts {
  const { snapshot } = facts;
  return { ...facts, snapshot: snapshot && { ...snapshot, licenses: change(snapshot.licenses) } };
}

const summary = ({ decision, reason, deciding, exceeded }: Outcome) => ({
  decision,
  reason,
  license: deciding?.license.id,
  exceeded: exceeded.map(({ limit, current, source }) => `${limit.metric} ${limit.window} ${+current} ${source}`),
});

test("decide agrees with the slow reading of the rules", () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(anyQuestion, anyFacts, anyNow, (question, facts, now) => {
      const outcome = summary(decide(question, facts, now));
      expect(outcome).toEqual(reference(question, facts, now));
      seen.add(`${outcome.decision} ${outcome.reason}`);
      for (const one of outcome.exceeded) seen.add(one.replace(/^.* /, ""));
    }),
    { numRuns: 10_000 },
  );
  // Every answer there is was among them, 14 pairs of decision and reason, and values of both sources.
  expect(seen.size).toBe(14 + 2);
});

describe("an answer", () => {
  /** Every moment at which something could begin or end, and the one before: days close by, and the end of the month. */
  const moments = [-4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 30].flatMap((days) => [
    origin + days * day - 1,
    origin + days * day,
  ]);

  test("is the same at all moments before it says that it may change", () => {
    let changed = 0;
    fc.assert(
      fc.property(anyQuestion, anyFacts, anyNow, (question, facts, now) => {
        const outcome = decide(question, facts, now);
        expect(outcome.holdsUntilMs).toBeGreaterThan(now);
        for (const moment of moments) {
          if (moment > now && moment < outcome.holdsUntilMs) expect(decide(question, facts, moment)).toEqual(outcome);
        }
        const then = outcome.holdsUntilMs;
        if (then < Number.POSITIVE_INFINITY && decide(question, facts, then).reason !== outcome.reason) changed += 1;
      }),
      { numRuns: 4_000 },
    );
    // Else it would be enough to say `now + 1` always.
    expect(changed).toBeGreaterThan(100);
  });

  test("that allows is taken away by no further license", () => {
    fc.assert(
      fc.property(anyQuestion, anyFacts, anyLicense, anyNow, (question, facts, more, now) => {
        if (decide(question, facts, now).decision !== "ALLOW") return;
        const both = withLicenses(facts, (licenses) => [...licenses, more]);
        expect(decide(question, both, now).decision).toBe("ALLOW");
      }),
      { numRuns: 2_000 },
    );
  });

  test("never gets better by more use", () => {
    fc.assert(
      fc.property(anyQuestion, anyFacts, anyNow, (question, facts, now) => {
        const levels = [...(facts.usage?.levels ?? [])].map(([metric, counters]) => {
          return [metric, counters.map((counter) => ({ ...counter, used: `1${counter.used}` }))] as const;
        });
        const more = { ...facts, usage: facts.usage && { ...facts.usage, levels: new Map(levels) } };
        if (decide(question, facts, now).decision === "DENY") {
          expect(decide(question, more, now).decision).toBe("DENY");
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("has sentences unless it is a plain yes, and one for each limit that is only told", () => {
    fc.assert(
      fc.property(anyQuestion, anyFacts, anyNow, (question, facts, now) => {
        const outcome = decide(question, facts, now);
        if (outcome.decision === "ALLOW") expect(outcome.violations).toHaveLength(outcome.exceeded.length);
        else expect(outcome.violations.length).toBeGreaterThan(0);
        for (const sentence of outcome.violations) expect(sentence).toMatch(/^["A-Z].*\.$/);
      }),
      { numRuns: 2_000 },
    );
  });
});

test("a grant decides as if the license listed the feature, until its end", () => {
  fc.assert(
    fc.property(anyQuestion, anyFacts, anyNow, (question, facts, now) => {
      const listed = withLicenses(facts, (licenses) =>
        licenses.map((own) => {
          const grant = own.grants.get(question.feature);
          if (grant === undefined || (grant.expiresAtMs ?? Number.POSITIVE_INFINITY) <= now) return own;
          return { ...own, grants: new Map(), features: new Set([...own.features, question.feature]) };
        }),
      );
      const outcome = decide(question, facts, now);
      const same = decide(question, listed, now);
      expect([summary(outcome), outcome.violations]).toEqual([summary(same), same.violations]);
      const told = outcome.deciding?.license.grants.get(question.feature);
      const usable = outcome.decision !== "DENY" && (told?.expiresAtMs ?? Number.POSITIVE_INFINITY) > now;
      expect(outcome.grant).toBe(usable ? told : undefined);
    }),
    { numRuns: 2_000 },
  );
});

test("older facts never allow more, and change nothing but allowances", () => {
  const at = (question: Question, facts: Facts, overdueMs: number) => decide(question, { ...facts, overdueMs }, origin);
  fc.assert(
    fc.property(anyQuestion, anyFacts, fc.nat(400_000), fc.nat(400_000), (question, facts, age, more) => {
      const [fresh, old, older] = [-1, age, age + more].map((overdueMs) => at(question, facts, overdueMs));
      if (fresh?.decision === "DENY") expect([old, older]).toEqual([fresh, fresh]);
      if (old?.decision === "DENY") expect(older?.decision).toBe("DENY");
      if (old?.decision !== "DENY") expect(fresh?.decision).not.toBe("DENY");
    }),
    { numRuns: 2_000 },
  );
});

test("values of the context are taken in place of usage, one of a window for that window only", () => {
  fc.assert(
    fc.property(anyQuestion, anyFacts, anyNow, (question, facts, now) => {
      const outcome = decide(
        {
          ...question,
          values: new Map([
            ["users", "0"],
            ["orders", "0"],
          ]),
        },
        facts,
        now,
      );
      expect(outcome).toEqual(
        decide(
          {
            ...question,
            values: new Map([
              ["users", "0"],
              ["orders", "0"],
            ]),
          },
          { ...facts, usage: undefined },
          now,
        ),
      );
      expect(outcome.comparedUsage).toBe(false);
      const daily = decide({ ...question, values: new Map([["users/per_day", "0"]]) }, facts, now);
      for (const { limit, source } of daily.exceeded) {
        if (source === "USAGE") expect(`${limit.metric}/${limit.window}`).not.toBe("users/PER_DAY");
      }
    }),
    { numRuns: 1_000 },
  );
});

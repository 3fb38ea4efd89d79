import { type Question as DecideQuestion, decide, type Facts, type Outcome } from "@licet/decide/decide";
import { explain } from "@licet/decide/explain";
import { InvalidValueError } from "@licet/decide/limits";
import type { TrustedClock } from "./clock.ts";
import { invalidArgument } from "./errors.ts";
import { toQuestion } from "./question.ts";
import type { Explanation, QuestionContext, Verdict, VerdictLicense } from "./verdict.ts";

/** How many verdicts are kept for those who ask the same again; with one more all are dropped. */
const MAX_KEPT = 200_000;

/** What is known about a customer at a moment. */
export interface KnownFacts extends Facts {
  /** Until when, in epoch milliseconds of the trusted clock, `overdueMs` stays on its side of 0; undefined: for no time. */
  readonly holdsUntilMs: number | undefined;
  /** How old the facts are at a moment, in milliseconds. */
  stalenessMs(nowMs: number): number;
}

/** Decides about customers in-process. */
export interface Decider {
  /** @throws {LicetError} INVALID_ARGUMENT for what can't be asked. */
  check(customerId: string, feature: string, context?: QuestionContext): Verdict;
  /** As `check`, with all that was looked at. */
  explain(customerId: string, feature: string, context?: QuestionContext): Explanation;
  /** What is known about a customer has changed. */
  forget(customerId: string): void;
  /** What is known about all has changed, or the clock has. */
  forgetAll(): void;
}

/** What {@link createDecider} needs. */
export interface DeciderOptions {
  readonly clock: TrustedClock;
  /** What is known about a customer; undefined: nothing, not even whether there is one. */
  factsOf(customerId: string, nowMs: number): KnownFacts | undefined;
  /** Why there are no facts about a customer, as a sentence. */
  whyNoFacts(customerId: string): string;
  /** The machine's steady clock alone; `performance.now` when absent. */
  readonly steadyMs?: (() => number) | undefined;
}

/** A verdict, and until when it is given, by the machine's steady clock: of all its clocks the one that costs no memory. */
interface Kept {
  readonly verdict: Verdict;
  readonly untilSteadyMs: number;
}

/**
 * Creates a decider. A verdict without context is kept and given again, the very same object, until the facts change or
 * the clock may change it: then a check is two look-ups and a glance at the clock. That the machine slept, or that its wall
 * clock was set, shows to `TrustedClock.tick`: whoever calls that has to call `forgetAll` then. While facts are too old each check is
 * decided anew, because each feature has its own grace.
 */
export function createDecider(options: DeciderOptions): Decider {
  const { clock, factsOf, whyNoFacts, steadyMs: steadyNow = () => performance.now() } = options;
  let kept = new Map<string, Map<string, Kept>>();
  let keptCount = 0;

  const forgetAll = (): void => {
    kept = new Map();
    keptCount = 0;
  };
  const keep = (customerId: string, feature: string, entry: Kept): void => {
    if (keptCount >= MAX_KEPT) forgetAll();
    const ofCustomer = kept.get(customerId) ?? new Map<string, Kept>();
    keptCount += ofCustomer.has(feature) ? 0 : 1;
    kept.set(customerId, ofCustomer.set(feature, entry));
  };
  const decideAnew = (customerId: string, feature: string, context: QuestionContext | undefined): Verdict => {
    const steadyMs = steadyNow();
    const nowMs = clock.nowMs();
    const question = toQuestion(customerId, feature, context);
    const facts = factsOf(customerId, nowMs);
    if (facts === undefined) return noFacts(customerId, feature, whyNoFacts(customerId));
    const outcome = naming(() => decide(question, facts, nowMs));
    const verdict = toVerdict(question, outcome, facts, clock);
    if (context === undefined && facts.holdsUntilMs !== undefined) {
      const holdsForMs = Math.min(facts.holdsUntilMs, outcome.holdsUntilMs) - nowMs;
      keep(customerId, feature, { verdict, untilSteadyMs: steadyMs + holdsForMs });
    }
    return verdict;
  };

  return {
    check(customerId, feature, context) {
      if (context === undefined) {
        const entry = kept.get(customerId)?.get(feature);
        if (entry !== undefined && steadyNow() < entry.untilSteadyMs) return entry.verdict;
      }
      return decideAnew(customerId, feature, context);
    },
    explain(customerId, feature, context) {
      const nowMs = clock.nowMs();
      const question = toQuestion(customerId, feature, context);
      const facts = factsOf(customerId, nowMs);
      if (facts === undefined) {
        const sentence = whyNoFacts(customerId);
        const step = { subject: "CUSTOMER", licenseId: undefined, passed: false, sentence, facts: {} } as const;
        return { verdict: noFacts(customerId, feature, sentence), steps: [step] };
      }
      // At the very moment of the verdict: a kept one may be older.
      return naming(() => ({
        verdict: toVerdict(question, decide(question, facts, nowMs), facts, clock),
        steps: explain(question, facts, nowMs).steps,
      }));
    },
    forget(customerId) {
      keptCount -= kept.get(customerId)?.size ?? 0;
      kept.delete(customerId);
    },
    forgetAll,
  };
}

/** A value that is no decimal is the caller's mistake. */
function naming<T>(decision: () => T): T {
  try {
    return decision();
  } catch (error) {
    throw error instanceof InvalidValueError ? invalidArgument(error.field, error.description) : error;
  }
}

function toVerdict(
  { customerId, feature }: DecideQuestion,
  outcome: Outcome,
  facts: KnownFacts,
  clock: TrustedClock,
): Verdict {
  const { decision, reason, deciding, violations, exceeded, grant } = outcome;
  const usageAsOfMs = outcome.comparedUsage ? facts.usage?.asOfMs : undefined;
  return Object.freeze({
    customerId,
    feature,
    decision,
    allowed: decision === "ALLOW",
    reason,
    license: deciding && toLicense(deciding),
    violations: Object.freeze(violations),
    limitViolations: Object.freeze(
      exceeded.map(({ limit: { metric, window, enforcement }, maximum, current, source }) =>
        Object.freeze({ metric, current, limit: maximum, window, enforcement, source }),
      ),
    ),
    grant: grant && Object.freeze({ expiresAtMs: grant.expiresAtMs, configuration: grant.configuration }),
    version: facts.snapshot?.version ?? 0n,
    get stalenessMs() {
      return facts.stalenessMs(clock.nowMs());
    },
    get usageStalenessMs() {
      return usageAsOfMs === undefined ? undefined : Math.max(0, clock.nowMs() - usageAsOfMs);
    },
    degraded: facts.overdueMs >= 0,
    source: "SDK",
  } satisfies Verdict);
}

function toLicense({ license, standing }: NonNullable<Outcome["deciding"]>): VerdictLicense {
  return Object.freeze({
    id: license.id,
    type: license.type,
    product: license.product,
    plan: license.plan,
    status: standing.status,
    validUntilMs: license.validUntilMs,
    graceUntilMs: standing.graceUntilMs,
  });
}

function noFacts(customerId: string, feature: string, sentence: string): Verdict {
  return Object.freeze({
    customerId,
    feature,
    decision: "DENY",
    allowed: false,
    reason: "NO_FACTS",
    license: undefined,
    violations: Object.freeze([sentence]),
    limitViolations: Object.freeze([]),
    grant: undefined,
    version: 0n,
    stalenessMs: Number.POSITIVE_INFINITY,
    usageStalenessMs: undefined,
    degraded: true,
    source: "SDK",
  } satisfies Verdict);
}

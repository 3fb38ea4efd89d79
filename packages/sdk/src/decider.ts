import { type Question as DecideQuestion, decide, type Facts, type Outcome } from "@licet/decide/decide";
import { explain } from "@licet/decide/explain";
import { InvalidValueError } from "@licet/decide/limits";
import type { TrustedClock } from "./clock.ts";
import { createDecisionCounts, type DecisionCount } from "./decision-counts.ts";
import { invalidArgument } from "./errors.ts";
import { toQuestion } from "./question.ts";
import type { Explanation, LimitViolation, QuestionContext, Verdict, VerdictLicense } from "./verdict.ts";

/** How many verdicts are kept for those who ask the same again; with one more all are dropped. */
const MAX_KEPT = 200_000;
const none: readonly never[] = Object.freeze([]);

/** What is known about a customer at a moment. */
export interface KnownFacts extends Facts {
  /** Until when, in epoch milliseconds of the trusted clock, `overdueMs` stays on its side of 0; undefined: for no time. */
  readonly holdsUntilMs: number | undefined;
  /** How old the facts are at a moment, in milliseconds. Verdicts keep it, so it should hold on to nothing large. */
  readonly stalenessMs: (nowMs: number) => number;
  /** How old what is known of usage is at a moment, in milliseconds; undefined: nothing is known of it. Kept likewise. */
  readonly usageStalenessMs: (nowMs: number) => number | undefined;
}

/** Decides about customers in-process. */
export interface Decider {
  /** @throws {LicetError} INVALID_ARGUMENT for what can't be asked. */
  check(customerId: string, feature: string, context?: QuestionContext): Verdict;
  /** As `check`, with all that was looked at. */
  explain(customerId: string, feature: string, context?: QuestionContext): Explanation;
  /** How often `check` has decided what; explanations are not counted. */
  counts(): Iterable<DecisionCount>;
  /** What is known about a customer has changed. */
  forget(customerId: string): void;
  /** What is known about all has changed, or the clock has. */
  forgetAll(): void;
}

/** Why there are no facts about a customer: not yet, or never. */
export interface WhyNoFacts {
  readonly reason: "NO_FACTS" | "NOT_COVERED";
  readonly sentence: string;
}

/** What {@link createDecider} needs. */
export interface DeciderOptions {
  readonly clock: TrustedClock;
  /** What is known about a customer; undefined: nothing, not even whether there is one. */
  factsOf(customerId: string, nowMs: number): KnownFacts | undefined;
  /** Why there are no facts about a customer. */
  whyNoFacts(customerId: string): WhyNoFacts;
  /** The machine's steady clock alone; `performance.now` when absent. */
  readonly steadyMs?: (() => number) | undefined;
}

/** A verdict, and until when it is given, by the machine's steady clock: of all its clocks the one that costs no memory. */
interface Kept {
  readonly verdict: Verdict;
  readonly counted: DecisionCount;
  readonly untilSteadyMs: number;
}

/**
 * Creates a decider. A verdict without context is kept and given again, the very same object, until the facts change or
 * the clock may change it: then a check is two look-ups, a glance at the clock and a count. That the machine slept, or that its wall
 * clock was set, shows to `TrustedClock.tick`: whoever calls that has to call `forgetAll` then. While facts are too old each check is
 * decided anew, because each feature has its own grace.
 */
export function createDecider(options: DeciderOptions): Decider {
  const { clock, factsOf, whyNoFacts, steadyMs: steadyNow = () => performance.now() } = options;
  let kept = new Map<string, Map<string, Kept>>();
  let keptCount = 0;
  const counts = createDecisionCounts();

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
    if (facts === undefined) {
      const verdict = noFacts(customerId, feature, whyNoFacts(customerId));
      counts.of(verdict).count += 1;
      return verdict;
    }
    const outcome = naming(() => decide(question, facts, nowMs));
    const verdict = toVerdict(question, outcome, facts, clock);
    const counted = counts.of(verdict);
    counted.count += 1;
    if (context === undefined && facts.holdsUntilMs !== undefined) {
      const holdsForMs = Math.min(facts.holdsUntilMs, outcome.holdsUntilMs) - nowMs;
      keep(customerId, feature, { verdict, counted, untilSteadyMs: steadyMs + holdsForMs });
    }
    return verdict;
  };

  return {
    check(customerId, feature, context) {
      if (context === undefined) {
        const entry = kept.get(customerId)?.get(feature);
        if (entry !== undefined && steadyNow() < entry.untilSteadyMs) {
          entry.counted.count += 1;
          return entry.verdict;
        }
      }
      return decideAnew(customerId, feature, context);
    },
    explain(customerId, feature, context) {
      const nowMs = clock.nowMs();
      const question = toQuestion(customerId, feature, context);
      const facts = factsOf(customerId, nowMs);
      if (facts === undefined) {
        const why = whyNoFacts(customerId);
        const step = {
          subject: "CUSTOMER",
          licenseId: undefined,
          passed: false,
          sentence: why.sentence,
          facts: {},
        } as const;
        return { verdict: noFacts(customerId, feature, why), steps: [step] };
      }
      // At the very moment of the verdict: a kept one may be older.
      return naming(() => ({
        verdict: toVerdict(question, decide(question, facts, nowMs), facts, clock),
        steps: explain(question, facts, nowMs).steps,
      }));
    },
    counts: counts.all,
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

/** Where a verdict keeps what its ages are told by. */
const aging = Symbol("aging");

interface Aging {
  readonly [aging]: {
    readonly clock: TrustedClock;
    readonly stalenessMs: (nowMs: number) => number;
    readonly usageStalenessMs: ((nowMs: number) => number | undefined) | undefined;
  };
}

/**
 * The ages that count on, for all verdicts the same two functions: with getters of its own a verdict would take seven times
 * the memory.
 */
const ages: PropertyDescriptorMap & ThisType<Aging> = {
  stalenessMs: {
    enumerable: true,
    get() {
      const { clock, stalenessMs } = this[aging];
      return stalenessMs(clock.nowMs());
    },
  },
  usageStalenessMs: {
    enumerable: true,
    get() {
      const { clock, usageStalenessMs } = this[aging];
      return usageStalenessMs?.(clock.nowMs());
    },
  },
};

function toVerdict(
  { customerId, feature }: DecideQuestion,
  outcome: Outcome,
  { snapshot, overdueMs, stalenessMs, usageStalenessMs }: KnownFacts,
  clock: TrustedClock,
): Verdict {
  const { decision, reason, deciding, violations, exceeded, grant, comparedUsage } = outcome;
  const verdict = {
    customerId,
    feature,
    decision,
    allowed: decision === "ALLOW",
    reason,
    license: deciding && toLicense(deciding),
    violations: violations.length === 0 ? none : Object.freeze(violations),
    limitViolations: exceeded.length === 0 ? none : Object.freeze(exceeded.map(toLimitViolation)),
    grant: grant && Object.freeze({ expiresAtMs: grant.expiresAtMs, configuration: grant.configuration }),
    version: snapshot?.version ?? 0n,
    degraded: overdueMs >= 0,
    source: "SDK",
  } satisfies Omit<Verdict, "stalenessMs" | "usageStalenessMs">;
  const value = { clock, stalenessMs, usageStalenessMs: comparedUsage ? usageStalenessMs : undefined };
  Object.defineProperty(verdict, aging, { value });
  Object.defineProperties(verdict, ages);
  // The compiler can't know what was defined.
  return Object.freeze(verdict) as unknown as Verdict;
}

function toLimitViolation({ limit, maximum, current, source }: Outcome["exceeded"][number]): LimitViolation {
  const { metric, window, enforcement } = limit;
  return Object.freeze({ metric, current, limit: maximum, window, enforcement, source });
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

function noFacts(customerId: string, feature: string, { reason, sentence }: WhyNoFacts): Verdict {
  return Object.freeze({
    customerId,
    feature,
    decision: "DENY",
    allowed: false,
    reason,
    license: undefined,
    violations: Object.freeze([sentence]),
    limitViolations: none,
    grant: undefined,
    version: 0n,
    stalenessMs: Number.POSITIVE_INFINITY,
    usageStalenessMs: undefined,
    degraded: true,
    source: "SDK",
  } satisfies Verdict);
}

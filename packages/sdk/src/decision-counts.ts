import type { Decision, Reason, Verdict } from "./verdict.ts";

/** How many features are counted by name. */
const MAX_FEATURES = 1_000;
/** Stands for all further ones; no feature's code begins like this. */
const OTHER_FEATURES = "_OTHER";

/** How often a feature was decided about in one way. */
export interface DecisionCount {
  readonly feature: string;
  readonly decision: Decision;
  readonly reason: Reason;
  /** Since the client was created. A number in place, so that counting allocates nothing. */
  count: number;
}

/** Counts of decisions by feature, decision and reason. */
export interface DecisionCounts {
  /** The count that verdicts like this one belong to. */
  of(verdict: Pick<Verdict, "feature" | "decision" | "reason">): DecisionCount;
  all(): Iterable<DecisionCount>;
}

/** Creates counts of nothing so far. */
export function createDecisionCounts(): DecisionCounts {
  const byFeature = new Map<string, Map<string, DecisionCount>>();
  return {
    of({ feature: asked, decision, reason }) {
      // Features come from callers: what they invent must not grow without end.
      const feature = byFeature.has(asked) || byFeature.size < MAX_FEATURES ? asked : OTHER_FEATURES;
      const counts = byFeature.get(feature) ?? new Map<string, DecisionCount>();
      byFeature.set(feature, counts);
      const way = `${decision} ${reason}`;
      const known = counts.get(way) ?? { feature, decision, reason, count: 0 };
      counts.set(way, known);
      return known;
    },
    *all() {
      for (const counts of byFeature.values()) yield* counts.values();
    },
  };
}

import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type CheckFeaturesResponseSchema,
  Decision,
  DecisionReason,
  DecisionSource,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { type DecidingLicense, decide, type Facts, type Outcome, type Question } from "@licet/decide/decide";
import { usageStalenessMs } from "@licet/decide/usage";
import { type Answered, toSummary } from "./convert.ts";

/** What is decided about many features of one customer. */
export interface Columns {
  /** A byte for each feature: the decision in the two highest bits, the reason in the others. */
  readonly verdicts: Uint8Array<ArrayBuffer>;
  /** The licenses that decided, each once. */
  readonly licenses: readonly DecidingLicense[];
  /** For each feature the place of its license among them, from 1; 0: none decided. */
  readonly refs: readonly number[];
  readonly outcomes: readonly Outcome[];
  /** Whether a limit was compared with usage. */
  readonly comparedUsage: boolean;
  /** Until when the clock alone changes nothing, in epoch milliseconds (excluded). */
  readonly holdsUntilMs: number;
}

/**
 * Decides about each of the features.
 *
 * @throws {InvalidValueError} as `decide` does.
 */
export function checkColumns(
  question: Omit<Question, "feature">,
  features: readonly string[],
  facts: Facts,
  nowMs: number,
): Columns {
  const verdicts = new Uint8Array(features.length);
  const licenses = new Map<string, DecidingLicense>();
  const places = new Map<string, number>();
  const refs: number[] = [];
  const outcomes: Outcome[] = [];
  let holdsUntilMs = Number.POSITIVE_INFINITY;
  for (const [index, feature] of features.entries()) {
    const outcome = decide({ ...question, feature }, facts, nowMs);
    const { decision, reason, deciding } = outcome;
    verdicts[index] = (Decision[decision] << 6) | DecisionReason[reason];
    if (deciding !== undefined && !licenses.has(deciding.license.id)) {
      licenses.set(deciding.license.id, deciding);
      places.set(deciding.license.id, licenses.size);
    }
    refs.push(deciding === undefined ? 0 : (places.get(deciding.license.id) ?? 0));
    outcomes.push(outcome);
    holdsUntilMs = Math.min(holdsUntilMs, outcome.holdsUntilMs);
  }
  const comparedUsage = outcomes.some((outcome) => outcome.comparedUsage);
  return { verdicts, licenses: [...licenses.values()], refs, outcomes, comparedUsage, holdsUntilMs };
}

/** What a reply is made of; see `Answered` of convert.ts. */
export interface CheckedColumns extends Pick<Answered, "found" | "degraded" | "usage" | "nowMs"> {
  readonly columns: Columns;
}

/** The reply that tells columns, and how far their facts can be trusted. */
export function toColumnsResponse({
  columns: { verdicts, licenses, refs, outcomes, comparedUsage },
  found: { snapshot, source, stalenessMs },
  degraded,
  usage,
  nowMs,
}: CheckedColumns): MessageInitShape<typeof CheckFeaturesResponseSchema> {
  // The reader works them out where there is one license at most, and its reasons say where it decided.
  const evident =
    licenses.length <= 1 &&
    outcomes.every(({ reason, deciding }) => (deciding === undefined) === aboutNoLicense.has(reason));
  return {
    verdicts,
    licenses: licenses.map(toSummary),
    licenseRefs: evident ? [] : [...refs],
    version: snapshot?.version ?? 0n,
    source: DecisionSource[source],
    stalenessMs: BigInt(Math.ceil(stalenessMs)),
    degraded,
    ...(comparedUsage && usage && { usageStalenessMs: BigInt(usageStalenessMs(usage, nowMs)) }),
  };
}

const aboutNoLicense: ReadonlySet<string> = new Set(["NO_LICENSE", "FEATURE_NOT_IN_PLAN"]);

import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Enforcement, LicenseType, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  Decision,
  DecisionReason,
  DecisionSource,
  type ExplanationSchema,
  ExplanationSubject,
  type LicenseSummarySchema,
  LimitSource,
  type LimitViolationSchema,
  type ValidateFeatureRequest,
  type ValidateFeatureResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { DecidingLicense, Outcome, Question } from "@licet/decide/decide";
import type { Usage } from "@licet/decide/entitlement";
import type { Explanation } from "@licet/decide/explain";
import type { ComparedLimit } from "@licet/decide/limits";
import { usageStalenessMs } from "@licet/decide/usage";
import type { FoundSnapshot } from "../cache/snapshots.ts";
import { consumeNotAvailable } from "../errors.ts";

/** The version that the answer must have seen; 0 where the request does not say. */
export function toAtLeast({ atLeast }: ValidateFeatureRequest): bigint {
  return atLeast?.version ?? 0n;
}

/**
 * The question that a request asks. In a context, `product` narrows it; all else are values of metrics.
 *
 * @throws ServiceError UNIMPLEMENTED `CONSUME_NOT_AVAILABLE` where it wants to count what the action uses
 */
export function toQuestion({ customerId, feature, context, consume }: ValidateFeatureRequest): Question {
  // Answering without counting would let everybody through whom the limit is to stop.
  for (const _metric in consume) throw consumeNotAvailable();
  return { customerId, feature, ...toValues(context) };
}

/** What a context says, whatever feature is asked about. */
export function toValues(context: Readonly<Record<string, string>>): Pick<Question, "product" | "values"> {
  // A map, because callers choose the keys: an object would also answer to `constructor`.
  const values = new Map(Object.entries(context));
  const product = values.get("product");
  values.delete("product");
  return { product, values };
}

/** What a reply is made of. */
export interface Answered {
  readonly outcome: Outcome;
  readonly found: FoundSnapshot;
  /** Whether the fail mode decided. */
  readonly degraded: boolean;
  /** What was known of the customer's usage, and how old it may be. */
  readonly usage: Usage | undefined;
  /** Only where the request asked for it. */
  readonly explanation: Explanation | undefined;
  /** When it was decided, in epoch milliseconds. */
  readonly nowMs: number;
}

/** The reply that tells an outcome, and how far its facts can be trusted. */
export function toResponse({
  outcome,
  found: { snapshot, source, stalenessMs },
  degraded,
  usage,
  explanation,
  nowMs,
}: Answered): MessageInitShape<typeof ValidateFeatureResponseSchema> {
  return {
    valid: outcome.decision === "ALLOW",
    license: outcome.deciding && toSummary(outcome.deciding),
    violations: [...outcome.violations],
    decision: Decision[outcome.decision],
    reason: DecisionReason[outcome.reason],
    limitViolations: outcome.exceeded.map(toLimitViolation),
    version: snapshot?.version ?? 0n,
    source: DecisionSource[source],
    stalenessMs: BigInt(Math.ceil(stalenessMs)),
    degraded,
    grant: outcome.grant && {
      expiresAt: toTimestamp(outcome.grant.expiresAtMs),
      configuration: outcome.grant.configuration,
    },
    explanation: explanation && toWireExplanation(explanation),
    ...(outcome.comparedUsage && usage && { usageStalenessMs: BigInt(usageStalenessMs(usage, nowMs)) }),
  };
}

function toWireExplanation({ steps, omittedSteps }: Explanation): MessageInitShape<typeof ExplanationSchema> {
  return {
    steps: steps.map(({ subject, licenseId, passed, sentence, facts }) => ({
      subject: ExplanationSubject[subject],
      licenseId: licenseId ?? "",
      passed,
      sentence,
      facts,
    })),
    omittedSteps,
  };
}

/** The license that decided, as replies tell it. */
export function toSummary({ license, standing }: DecidingLicense): MessageInitShape<typeof LicenseSummarySchema> {
  return {
    licenseId: license.id,
    type: LicenseType[license.type],
    product: license.product,
    plan: license.plan ?? "",
    status: LicenseStatus[standing.status],
    validUntil: toTimestamp(license.validUntilMs),
    graceUntil: toTimestamp(standing.graceUntilMs),
  };
}

function toLimitViolation(compared: ComparedLimit): MessageInitShape<typeof LimitViolationSchema> {
  const { limit, maximum, current, source, resetsAtMs } = compared;
  return {
    metric: limit.metric,
    current,
    limit: maximum,
    window: LimitWindow[limit.window],
    enforcement: Enforcement[limit.enforcement],
    source: LimitSource[source],
    resetsAt: toTimestamp(resetsAtMs),
  };
}

function toTimestamp(ms: number | undefined): Timestamp | undefined {
  return ms === undefined ? undefined : timestampFromMs(ms);
}

import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Enforcement, LicenseType, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  Decision,
  DecisionReason,
  DecisionSource,
  type LicenseSummarySchema,
  type LimitViolationSchema,
  type ValidateFeatureRequest,
  type ValidateFeatureResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { FoundSnapshot } from "../cache/snapshots.ts";
import type { DecidingLicense, Outcome, Question } from "../domain/decide.ts";
import type { ExceededLimit } from "../domain/limits.ts";

/** The version that the answer must have seen; 0 where the request does not say. */
export function toAtLeast({ atLeast }: ValidateFeatureRequest): bigint {
  return atLeast?.version ?? 0n;
}

/** The question that a request asks. In a context, `product` narrows it; all else are values of metrics. */
export function toQuestion({ customerId, feature, context }: ValidateFeatureRequest): Question {
  // A map, because callers choose the keys: an object would also answer to `constructor`.
  const values = new Map(Object.entries(context));
  const product = values.get("product");
  values.delete("product");
  return { customerId, feature, product, values };
}

/** The reply that tells an outcome, and how far its facts can be trusted. */
export function toResponse(
  outcome: Outcome,
  { snapshot, source, stalenessMs }: FoundSnapshot,
  degraded: boolean,
): MessageInitShape<typeof ValidateFeatureResponseSchema> {
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
  };
}

function toSummary({ license, standing }: DecidingLicense): MessageInitShape<typeof LicenseSummarySchema> {
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

function toLimitViolation({ limit, maximum, current }: ExceededLimit): MessageInitShape<typeof LimitViolationSchema> {
  return {
    metric: limit.metric,
    current,
    limit: maximum,
    window: LimitWindow[limit.window],
    enforcement: Enforcement[limit.enforcement],
  };
}

function toTimestamp(ms: number | undefined): Timestamp | undefined {
  return ms === undefined ? undefined : timestampFromMs(ms);
}

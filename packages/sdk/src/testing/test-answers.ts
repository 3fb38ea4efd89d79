import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Enforcement, LicenseType, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  type CheckFeaturesRequest,
  type CheckFeaturesResponseSchema,
  Decision,
  DecisionReason,
  DecisionSource,
  ExplanationSubject,
  type LicenseSummarySchema,
  LimitSource,
  type ValidateFeatureRequest,
  type ValidateFeatureResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { type DecidingLicense, decide, type Facts, type Question } from "@licet/decide/decide";
import { explain, type Step } from "@licet/decide/explain";
import { toCatalog, toSnapshot } from "@licet/decide/from-wire";
import { FENCE_MS } from "../facts.ts";
import type { ServedFacts } from "./test-service.ts";

/** The answer of ValidateFeature. */
export function toValidateFeatureReply(
  facts: ServedFacts,
  request: ValidateFeatureRequest,
  stalenessMs: number,
): MessageInitShape<typeof ValidateFeatureResponseSchema> {
  const question = toQuestion(request, request.feature);
  const known = factsFor(facts, request, stalenessMs);
  const outcome = decide(question, known, Date.now());
  return {
    ...(request.explain && { explanation: { steps: explain(question, known, Date.now()).steps.map(toStep) } }),
    valid: outcome.decision === "ALLOW",
    ...(outcome.deciding && { license: toSummary(outcome.deciding) }),
    violations: [...outcome.violations],
    decision: Decision[outcome.decision],
    reason: DecisionReason[outcome.reason],
    limitViolations: outcome.exceeded.map(({ limit, maximum, current, source }) => ({
      metric: limit.metric,
      current,
      limit: maximum,
      window: LimitWindow[limit.window],
      enforcement: Enforcement[limit.enforcement],
      source: LimitSource[source],
    })),
    ...(outcome.grant && {
      grant: { configuration: outcome.grant.configuration, ...maybeTime("expiresAt", outcome.grant.expiresAtMs) },
    }),
    ...aboutFacts(facts, request, stalenessMs),
  };
}

/** The answer of CheckFeatures. */
export function toCheckFeaturesReply(
  facts: ServedFacts,
  request: CheckFeaturesRequest,
  stalenessMs: number,
): MessageInitShape<typeof CheckFeaturesResponseSchema> {
  const known = factsFor(facts, request, stalenessMs);
  const outcomes = request.features.map((feature) => decide(toQuestion(request, feature), known, Date.now()));
  const decided = new Map(
    outcomes.flatMap(({ deciding }) => (deciding ? [[deciding.license.id, deciding] as const] : [])),
  );
  const ids = [...decided.keys()];
  return {
    verdicts: Uint8Array.from(outcomes, ({ decision, reason }) => (Decision[decision] << 6) | DecisionReason[reason]),
    licenses: [...decided.values()].map(toSummary),
    licenseRefs: outcomes.map(({ deciding }) => (deciding === undefined ? 0 : ids.indexOf(deciding.license.id) + 1)),
    ...aboutFacts(facts, request, stalenessMs),
  };
}

type Asked = Pick<ValidateFeatureRequest, "customerId" | "context">;

function toQuestion({ customerId, context }: Asked, feature: string): Question {
  const values = new Map(Object.entries(context));
  const product = values.get("product");
  values.delete("product");
  return { customerId, feature, product, values };
}

function factsFor({ customers, products }: ServedFacts, { customerId }: Asked, stalenessMs: number): Facts {
  const snapshot = customers.get(customerId);
  const catalogs = new Map([...products].map(([name, catalog]) => [name, toCatalog(catalog)]));
  return {
    snapshot: snapshot && toSnapshot(snapshot),
    catalogs,
    usage: undefined,
    overdueMs: stalenessMs - FENCE_MS,
  };
}

function toStep({ subject, licenseId = "", ...step }: Step) {
  return { ...step, subject: ExplanationSubject[subject], licenseId };
}

function aboutFacts({ customers }: ServedFacts, { customerId }: Asked, stalenessMs: number) {
  return {
    version: customers.get(customerId)?.version ?? 0n,
    source: DecisionSource.MEMORY,
    stalenessMs: BigInt(Math.ceil(stalenessMs)),
    degraded: stalenessMs >= FENCE_MS,
  };
}

function toSummary({ license, standing }: DecidingLicense): MessageInitShape<typeof LicenseSummarySchema> {
  return {
    licenseId: license.id,
    type: LicenseType[license.type],
    product: license.product,
    plan: license.plan ?? "",
    status: LicenseStatus[standing.status],
    ...maybeTime("validUntil", license.validUntilMs),
    ...maybeTime("graceUntil", standing.graceUntilMs),
  };
}

function maybeTime<N extends string>(name: N, ms: number | undefined) {
  return ms === undefined ? {} : { [name]: timestampFromMs(ms) };
}

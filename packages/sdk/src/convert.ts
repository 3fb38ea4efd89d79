import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Enforcement, LicenseType, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  type Answer,
  type CheckFeaturesResponse,
  Decision,
  DecisionReason,
  DecisionSource,
  ExplanationSubject,
  type LicenseSummary,
  LimitSource,
  type ValidateFeatureResponse,
  type LimitViolation as WireLimitViolation,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { fromStatus, LicetError } from "./errors.ts";
import type { ExplanationStep, LimitViolation, Reason, Verdict, VerdictLicense } from "./verdict.ts";

/** The verdict that a reply of ValidateFeature tells. */
export function fromValidateFeature(customerId: string, feature: string, reply: ValidateFeatureResponse): Verdict {
  const { grant } = reply;
  return Object.freeze({
    customerId,
    feature,
    ...answerOf(reply.decision, reply.reason),
    license: reply.license && toLicense(reply.license),
    violations: Object.freeze([...reply.violations]),
    limitViolations: Object.freeze(reply.limitViolations.map(toLimitViolation)),
    grant: grant && Object.freeze({ expiresAtMs: toMs(grant.expiresAt), configuration: grant.configuration }),
    version: reply.version,
    stalenessMs: Number(reply.stalenessMs),
    usageStalenessMs: toNumber(reply.usageStalenessMs),
    degraded: reply.degraded,
    source: wordOf(DecisionSource, reply.source, "LICENSING"),
  } satisfies Verdict);
}

/** What an answer of BatchValidate tells: the verdict, or why there is none. */
export function fromAnswer(customerId: string, feature: string, answer: Answer | undefined): Verdict | LicetError {
  switch (answer?.result.case) {
    case "response":
      return fromValidateFeature(customerId, feature, answer.result.value);
    case "error":
      return fromStatus(answer.result.value);
    default:
      return new LicetError({ code: "UNKNOWN", reason: "UNKNOWN", message: "the server left out the answer" });
  }
}

/** The steps that a reply of ValidateFeature tells, where they were asked for. */
export function toSteps({ explanation }: ValidateFeatureResponse): ExplanationStep[] {
  return (explanation?.steps ?? []).map(({ subject, licenseId, passed, sentence, facts }) => ({
    subject: wordOf(ExplanationSubject, subject, "CUSTOMER"),
    licenseId: licenseId === "" ? undefined : licenseId,
    passed,
    sentence,
    facts,
  }));
}

/** The verdicts that a reply of CheckFeatures tells, in the order of the features. */
export function fromCheckFeatures(
  customerId: string,
  features: readonly string[],
  reply: CheckFeaturesResponse,
): Verdict[] {
  const licenses = reply.licenses.map(toLicense);
  const source = wordOf(DecisionSource, reply.source, "LICENSING");
  return features.map((feature, index) => {
    const byte = reply.verdicts[index] ?? 0;
    const answer = answerOf(byte >> 6, byte & 0x3f);
    return Object.freeze({
      customerId,
      feature,
      ...answer,
      license: licenses[licenseIndex(reply, index, answer.reason)],
      violations: Object.freeze([]),
      limitViolations: Object.freeze([]),
      grant: undefined,
      version: reply.version,
      stalenessMs: Number(reply.stalenessMs),
      usageStalenessMs: toNumber(reply.usageStalenessMs),
      degraded: reply.degraded,
      source,
    } satisfies Verdict);
  });
}

/** Which of the reply's licenses decided; -1: none. */
function licenseIndex({ licenseRefs }: CheckFeaturesResponse, index: number, reason: Reason): number {
  if (licenseRefs.length > 0) return (licenseRefs[index] ?? 0) - 1;
  return reason === "NO_LICENSE" || reason === "FEATURE_NOT_IN_PLAN" ? -1 : 0;
}

/** A decision that only a newer service knows must not allow anything. */
function answerOf(decisionNumber: number, reasonNumber: number): Pick<Verdict, "decision" | "allowed" | "reason"> {
  const decision = wordOf(Decision, decisionNumber, "DENY");
  return {
    decision,
    allowed: decision === "ALLOW",
    reason: wordOf<typeof DecisionReason, Reason>(DecisionReason, reasonNumber, "UNKNOWN"),
  };
}

function toLicense(wire: LicenseSummary): VerdictLicense {
  return Object.freeze({
    id: wire.licenseId,
    type: wordOf(LicenseType, wire.type, "CUSTOM"),
    product: wire.product,
    plan: wire.plan === "" ? undefined : wire.plan,
    status: wordOf(LicenseStatus, wire.status, "SUSPENDED"),
    validUntilMs: toMs(wire.validUntil),
    graceUntilMs: toMs(wire.graceUntil),
  });
}

function toLimitViolation(wire: WireLimitViolation): LimitViolation {
  const { metric, current, limit, window, enforcement, source } = wire;
  return Object.freeze({
    metric,
    current,
    limit,
    window: wordOf(LimitWindow, window, "GAUGE"),
    enforcement: wordOf(Enforcement, enforcement, "HARD"),
    source: wordOf(LimitSource, source, "CONTEXT"),
  });
}

function toNumber(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

function toMs(time: Timestamp | undefined): number | undefined {
  return time && timestampMs(time);
}

type Word<E> = Exclude<Extract<keyof E, string>, "UNSPECIFIED">;

/** The name of an enum's number; `fallback` for none, and for one that only a newer contract has. */
function wordOf<E extends object, F extends string = Word<E>>(type: E, number: number, fallback: F): Word<E> | F {
  // An enum maps both ways at run time, which its type does not say.
  const word = (type as Readonly<Record<number, string | undefined>>)[number];
  return word === undefined || word === "UNSPECIFIED" ? fallback : (word as Word<E>);
}

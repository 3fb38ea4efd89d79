import type { Big } from "big.js";
import { type Catalog, DEFAULT_FAIL_GRACE_MS, type Grant, type License, type Snapshot } from "./entitlement.ts";
import { type ExceededLimit, exceededLimits, readLevels } from "./limits.ts";
import * as sentences from "./sentences.ts";
import { type Standing, standingAt } from "./standing.ts";

/** The answer in one word. */
export type Decision = "ALLOW" | "ALLOW_REDUCE_ONLY" | "DENY";

/**
 * Why, in the order in which reasons are told: where several licenses allow,
 * the one with the fewest reserves counts; where none does, the order is fixed
 * by product.md ("Vocabulary"), behind a license that would allow if what is
 * known were younger.
 */
const reasonOrder = [
  "ALLOWED",
  "ALLOWED_PAST_DUE",
  "ALLOWED_IN_GRACE",
  "FACTS_TOO_OLD",
  "LICENSE_REVOKED",
  "LICENSE_SUSPENDED",
  "LICENSE_EXPIRED",
  "LICENSE_CANCELLED",
  "LICENSE_NOT_YET_VALID",
  "LIMIT_EXCEEDED",
  "FEATURE_NOT_IN_PLAN",
  "NO_LICENSE",
] as const;

/** Why; one reason an outcome. */
export type Reason = (typeof reasonOrder)[number];

/** May this customer use this feature? */
export interface Question {
  readonly customerId: string;
  readonly feature: string;
  /** Narrows the question to the licenses of one product. */
  readonly product: string | undefined;
  /** What metrics will be after the action, as decimals by metric; other entries are ignored. */
  readonly values: ReadonlyMap<string, string>;
}

/** What is known. */
export interface Facts {
  /** Undefined: the customer is unknown. */
  readonly snapshot: Snapshot | undefined;
  /** The tenant's products. */
  readonly catalogs: ReadonlyMap<string, Catalog>;
  /**
   * For how many milliseconds the facts have been too old to rely on; negative while they are not. From 0 on an allowance
   * may have been withdrawn unseen, and stands only as long as the feature's fail mode says.
   */
  readonly overdueMs: number;
}

/** The license that an outcome is about, and where it stands. */
export interface DecidingLicense {
  readonly license: License;
  readonly standing: Standing;
}

/** The answer to a {@link Question}. */
export interface Outcome {
  readonly decision: Decision;
  readonly reason: Reason;
  /** The license that allowed, or the one whose reason is told; undefined where no license is about the feature. */
  readonly deciding: DecidingLicense | undefined;
  /** What stands against it, a sentence each; those of the deciding license first. */
  readonly violations: readonly string[];
  /** The limits of the deciding license that the values exceed, soft ones too. */
  readonly exceeded: readonly ExceededLimit[];
  /** The grant that the deciding license has of the feature, whether or not its terms give it too; only where it may be used. */
  readonly grant: Grant | undefined;
}

/**
 * Decides at one moment. Any one license that allows, allows, with its own
 * limits; they are never merged. The licenses that count are those of a
 * product that offers the feature, and those that list it themselves or have
 * been granted it. A grant gives a feature until its own end, and nothing that
 * the license's standing or limits deny.
 *
 * @throws {ServiceError} INVALID_ARGUMENT for a value that a limit counts and that is no decimal.
 */
export function decide(question: Question, { snapshot, catalogs, overdueMs }: Facts, nowMs: number): Outcome {
  const { customerId, feature, product } = question;
  if (snapshot === undefined) return refuse("NO_LICENSE", sentences.customerUnknown(customerId));

  const held = product === undefined ? snapshot.licenses : snapshot.licenses.filter((own) => own.product === product);
  if (held.length === 0) return refuse("NO_LICENSE", sentences.holdsNoLicense(customerId, product));

  const candidates = held.filter(
    (own) => own.features.has(feature) || own.grants.has(feature) || offers(catalogs.get(own.product), feature),
  );
  if (candidates.length === 0) {
    const known = [...catalogs.values()].some((catalog) => offers(catalog, feature));
    const sentence = known ? sentences.notInProducts(feature, held) : sentences.featureUnknown(feature);
    return refuse("FEATURE_NOT_IN_PLAN", sentence);
  }

  const levels = readLevels(candidates, question.values);
  const verdicts = candidates.map((license) => {
    const catalog = catalogs.get(license.product);
    return fence(
      judge(license, catalog, feature, levels, nowMs),
      catalog?.features.get(feature)?.failGraceMs,
      overdueMs,
    );
  });
  return conclude(verdicts, question, nowMs);
}

/** What one license alone answers. */
interface Verdict extends DecidingLicense {
  readonly decision: Decision;
  readonly reason: Reason;
  readonly exceeded: readonly ExceededLimit[];
  /** What is known of a grant of the feature, also one that has expired. */
  readonly grant: Grant | undefined;
}

function judge(
  license: License,
  catalog: Catalog | undefined,
  feature: string,
  levels: ReadonlyMap<string, Big>,
  nowMs: number,
): Verdict {
  const standing = standingAt(license, nowMs);
  const { status } = standing;
  const grant = license.grants.get(feature);
  const inTerms = license.features.has(feature) || (license.features.has("*") && offers(catalog, feature));
  const gives = inTerms || holdsAt(grant, nowMs);
  const reducible = gives && catalog?.features.get(feature)?.reduceOnly === true;
  const verdict = (decision: Decision, reason: Reason, exceeded: readonly ExceededLimit[] = []): Verdict => {
    return { license, standing, decision, reason, exceeded, grant };
  };

  if (status === "REVOKED") return verdict("DENY", "LICENSE_REVOKED");
  if (status === "SUSPENDED") return verdict(reducible ? "ALLOW_REDUCE_ONLY" : "DENY", "LICENSE_SUSPENDED");
  if (status === "EXPIRED") return verdict(reducible ? "ALLOW_REDUCE_ONLY" : "DENY", "LICENSE_EXPIRED");
  if (status === "CANCELLED") return verdict("DENY", "LICENSE_CANCELLED");
  if (status === "PENDING") return verdict("DENY", "LICENSE_NOT_YET_VALID");
  if (!gives) return verdict("DENY", "FEATURE_NOT_IN_PLAN");
  const exceeded = exceededLimits(license.limits, levels);
  if (exceeded.some(({ limit }) => limit.enforcement === "HARD")) return verdict("DENY", "LIMIT_EXCEEDED", exceeded);
  if (status === "GRACE") return verdict("ALLOW", "ALLOWED_IN_GRACE", exceeded);
  if (status === "PAST_DUE") return verdict("ALLOW", "ALLOWED_PAST_DUE", exceeded);
  return verdict("ALLOW", "ALLOWED", exceeded);
}

/** What is left of a verdict on facts that may be too old: a denial stays, the rest until the feature's grace is over. */
function fence(verdict: Verdict, failGraceMs = DEFAULT_FAIL_GRACE_MS, overdueMs: number): Verdict {
  if (verdict.decision === "DENY" || overdueMs < 0 || overdueMs < failGraceMs) return verdict;
  return { ...verdict, decision: "DENY", reason: "FACTS_TOO_OLD" };
}

/**
 * The best decision of all licenses, with the first reason for it; between
 * equals the older license is told. What the others lack is told behind it,
 * but only while the answer is not a plain yes.
 */
function conclude(verdicts: Verdict[], question: Question, nowMs: number): Outcome {
  const decisionOrder: readonly Decision[] = ["ALLOW", "ALLOW_REDUCE_ONLY", "DENY"];
  const rank = ({ decision, reason }: Verdict): number =>
    decisionOrder.indexOf(decision) * reasonOrder.length + reasonOrder.indexOf(reason);
  // Sorting keeps the length, and there is at least one candidate.
  const [first, ...others] = verdicts.sort((a, b) => rank(a) - rank(b)) as [Verdict, ...Verdict[]];
  const told = first.decision === "ALLOW" ? [first] : [first, ...others];
  return {
    decision: first.decision,
    reason: first.reason,
    deciding: first,
    violations: told.flatMap((verdict) => sentencesOf(verdict, question)),
    exceeded: first.exceeded,
    grant: first.decision !== "DENY" && holdsAt(first.grant, nowMs) ? first.grant : undefined,
  };
}

function sentencesOf({ decision, reason, license, exceeded, grant }: Verdict, question: Question): string[] {
  const { customerId, feature } = question;
  const reserve = decision === "ALLOW_REDUCE_ONLY" ? [sentences.reduceOnly(feature)] : [];
  switch (reason) {
    case "FACTS_TOO_OLD":
      return [sentences.factsTooOld(feature, customerId)];
    case "LICENSE_REVOKED":
      return [sentences.revoked(customerId, license)];
    case "LICENSE_SUSPENDED":
      return [sentences.suspended(customerId, license), ...reserve];
    case "LICENSE_EXPIRED":
      return [sentences.expired(customerId, license), ...reserve];
    case "LICENSE_CANCELLED":
      return [sentences.cancelled(customerId, license)];
    case "LICENSE_NOT_YET_VALID":
      return [sentences.notYetValid(customerId, license)];
    case "FEATURE_NOT_IN_PLAN":
      return [sentences.notInPlan(feature, customerId, license), ...sentences.grantExpired(feature, grant)];
    default:
      return exceeded.map((one) => sentences.limitExceeded(one, license));
  }
}

/** Whether there is a grant and it has not expired. */
function holdsAt(grant: Grant | undefined, nowMs: number): boolean {
  return grant !== undefined && (grant.expiresAtMs === undefined || nowMs < grant.expiresAtMs);
}

function offers(catalog: Catalog | undefined, feature: string): boolean {
  return catalog?.features.has(feature) === true;
}

function refuse(reason: Reason, sentence: string): Outcome {
  return { decision: "DENY", reason, deciding: undefined, violations: [sentence], exceeded: [], grant: undefined };
}

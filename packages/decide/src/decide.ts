import {
  type Catalog,
  DEFAULT_FAIL_GRACE_MS,
  type Grant,
  type License,
  type Snapshot,
  type Usage,
} from "./entitlement.ts";
import { type ComparedLimit, checkValues, compareLimits } from "./limits.ts";
import * as sentences from "./sentences.ts";
import { type Standing, standingAt, standsUntilMs } from "./standing.ts";

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
  /**
   * What metrics will be after the action, as decimals by metric, or by metric and window, such as `api_calls/per_day`; other
   * entries are ignored.
   */
  readonly values: ReadonlyMap<string, string>;
}

/** What is known. */
export interface Facts {
  /** Undefined: the customer is unknown. */
  readonly snapshot: Snapshot | undefined;
  /** The tenant's products. */
  readonly catalogs: ReadonlyMap<string, Catalog>;
  /** What the customer has used; undefined: nobody knows, and no limit is compared with it. */
  readonly usage: Usage | undefined;
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
  /** The limits of the deciding license that the values exceed or usage has used up, soft ones too. */
  readonly exceeded: readonly ComparedLimit[];
  /** The grant that the deciding license has of the feature, whether or not its terms give it too; only where it may be used. */
  readonly grant: Grant | undefined;
  /** Whether a limit of any license was compared with usage. How old that is, is not part of the outcome. */
  readonly comparedUsage: boolean;
  /**
   * Until when the same question on the same facts has the same answer, in epoch milliseconds (excluded); Infinity: for
   * ever. The clock begins, ends and suspends licenses, ends grants and lets counts begin anew. That facts grow too old is
   * for the caller to see, see `overdueMs`.
   */
  readonly holdsUntilMs: number;
}

/**
 * Decides at one moment. Any one license that allows, allows, with its own
 * limits; they are never merged. The licenses that count are those of a
 * product that offers the feature, and those that list it themselves or have
 * been granted it. A grant gives a feature until its own end, and nothing that
 * the license's standing or limits deny.
 *
 * @throws {InvalidValueError} for a value that a limit counts and that is no decimal.
 */
export function decide(question: Question, facts: Facts, nowMs: number): Outcome {
  const { customerId, feature, product } = question;
  const { snapshot, catalogs } = facts;
  if (snapshot === undefined) return refuse("NO_LICENSE", sentences.customerUnknown(customerId));

  const { licenses } = snapshot;
  const held = product === undefined ? licenses : licenses.filter((license) => isAskedAbout(license, product));
  if (held.length === 0) return refuse("NO_LICENSE", sentences.holdsNoLicense(customerId, product));

  const candidates = held.filter((license) => isCandidate(license, catalogs.get(license.product), feature));
  if (candidates.length === 0) {
    const known = [...catalogs.values()].some((catalog) => offers(catalog, feature));
    const sentence = known ? sentences.notInProducts(feature, held) : sentences.featureUnknown(feature);
    return refuse("FEATURE_NOT_IN_PLAN", sentence);
  }
  return conclude(judgeAll(candidates, question, facts, nowMs), question, nowMs);
}

/** Whether a license is of the product that the question is narrowed to, if it is. */
export function isAskedAbout(license: License, product: string | undefined): boolean {
  return product === undefined || license.product === product;
}

/** Whether a license of this product has a say about a feature. */
export function isCandidate(license: License, catalog: Catalog | undefined, feature: string): boolean {
  return license.features.has(feature) || license.grants.has(feature) || offers(catalog, feature);
}

/** What one license alone answers. */
export interface Verdict extends DecidingLicense {
  readonly decision: Decision;
  readonly reason: Reason;
  readonly exceeded: readonly ComparedLimit[];
  readonly comparedUsage: boolean;
  /** What is known of a grant of the feature, also one that has expired. */
  readonly grant: Grant | undefined;
}

/**
 * What each license alone answers, the best answer first: by decision, then by reason; between equals the older license.
 *
 * @throws {InvalidValueError} for a value that a limit counts and that is no decimal.
 */
export function judgeAll(
  candidates: readonly License[],
  { feature, values }: Question,
  { catalogs, usage, overdueMs }: Facts,
  nowMs: number,
): Verdict[] {
  checkValues(candidates, values);
  const verdicts = candidates.map((license) => {
    const catalog = catalogs.get(license.product);
    const compare = () => compareLimits(license, values, usage?.levels, nowMs);
    return fence(judge(license, catalog, feature, compare, nowMs), failGraceMs(catalog, feature), overdueMs);
  });
  return verdicts.sort((a, b) => rank(a) - rank(b));
}

function judge(
  license: License,
  catalog: Catalog | undefined,
  feature: string,
  compare: () => readonly ComparedLimit[],
  nowMs: number,
): Verdict {
  const standing = standingAt(license, nowMs);
  const { status } = standing;
  const grant = license.grants.get(feature);
  const gives = givesByTerms(license, catalog, feature) || grantHoldsAt(grant, nowMs);
  const reducible = gives && mayReduce(catalog, feature);
  const verdict = (decision: Decision, reason: Reason, compared: readonly ComparedLimit[] = []): Verdict => {
    const exceeded = compared.filter((one) => one.exceeded);
    const comparedUsage = compared.some(({ source }) => source === "USAGE");
    return { license, standing, decision, reason, exceeded, comparedUsage, grant };
  };

  if (status === "REVOKED") return verdict("DENY", "LICENSE_REVOKED");
  if (status === "SUSPENDED") return verdict(reducible ? "ALLOW_REDUCE_ONLY" : "DENY", "LICENSE_SUSPENDED");
  if (status === "EXPIRED") return verdict(reducible ? "ALLOW_REDUCE_ONLY" : "DENY", "LICENSE_EXPIRED");
  if (status === "CANCELLED") return verdict("DENY", "LICENSE_CANCELLED");
  if (status === "PENDING") return verdict("DENY", "LICENSE_NOT_YET_VALID");
  if (!gives) return verdict("DENY", "FEATURE_NOT_IN_PLAN");
  const compared = compare();
  if (compared.some(isBroken)) return verdict("DENY", "LIMIT_EXCEEDED", compared);
  if (status === "GRACE") return verdict("ALLOW", "ALLOWED_IN_GRACE", compared);
  if (status === "PAST_DUE") return verdict("ALLOW", "ALLOWED_PAST_DUE", compared);
  return verdict("ALLOW", "ALLOWED", compared);
}

/** What is left of a verdict on facts that may be too old: a denial stays, the rest until the feature's grace is over. */
function fence(verdict: Verdict, graceMs: number, overdueMs: number): Verdict {
  if (verdict.decision === "DENY" || !isTooOld(graceMs, overdueMs)) return verdict;
  return { ...verdict, decision: "DENY", reason: "FACTS_TOO_OLD" };
}

const decisionOrder: readonly Decision[] = ["ALLOW", "ALLOW_REDUCE_ONLY", "DENY"];

function rank({ decision, reason }: Verdict): number {
  return decisionOrder.indexOf(decision) * reasonOrder.length + reasonOrder.indexOf(reason);
}

/**
 * The best verdict. What the others lack is told behind it, but only while the
 * answer is not a plain yes.
 */
function conclude(verdicts: readonly Verdict[], question: Question, nowMs: number): Outcome {
  // There is at least one candidate, and each has a verdict.
  const [first, ...others] = verdicts as [Verdict, ...Verdict[]];
  const told = first.decision === "ALLOW" ? [first] : [first, ...others];
  return {
    decision: first.decision,
    reason: first.reason,
    deciding: first,
    violations: told.flatMap((verdict) => sentencesOf(verdict, question)),
    exceeded: first.exceeded,
    grant: first.decision !== "DENY" && grantHoldsAt(first.grant, nowMs) ? first.grant : undefined,
    comparedUsage: verdicts.some(({ comparedUsage }) => comparedUsage),
    holdsUntilMs: Math.min(...verdicts.map((verdict) => verdictHoldsUntilMs(verdict, nowMs))),
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

/** Whether facts are too old to allow a feature with so many milliseconds of grace. */
export function isTooOld(graceMs: number, overdueMs: number): boolean {
  return overdueMs >= 0 && overdueMs >= graceMs;
}

/** How many milliseconds longer a feature stays allowed once facts are too old. */
export function failGraceMs(catalog: Catalog | undefined, feature: string): number {
  return catalog?.features.get(feature)?.failGraceMs ?? DEFAULT_FAIL_GRACE_MS;
}

/** Whether a suspended or expired license may still reduce what is open by a feature. */
export function mayReduce(catalog: Catalog | undefined, feature: string): boolean {
  return catalog?.features.get(feature)?.reduceOnly === true;
}

/** Whether the license's own terms give a feature, be it by `*`. */
export function givesByTerms(license: License, catalog: Catalog | undefined, feature: string): boolean {
  return license.features.has(feature) || (license.features.has("*") && offers(catalog, feature));
}

/** Whether there is a grant and it has not expired. */
export function grantHoldsAt(grant: Grant | undefined, nowMs: number): boolean {
  return grant !== undefined && (grant.expiresAtMs === undefined || nowMs < grant.expiresAtMs);
}

/** Whether a limit stands against the answer yes: a soft one is only told. */
export function isBroken({ exceeded, limit }: ComparedLimit): boolean {
  return exceeded && limit.enforcement === "HARD";
}

function verdictHoldsUntilMs({ license, grant, exceeded }: Verdict, nowMs: number): number {
  let until = standsUntilMs(license, nowMs);
  for (const at of [grant?.expiresAtMs, ...exceeded.map(({ resetsAtMs }) => resetsAtMs)]) {
    if (at !== undefined && at > nowMs && at < until) until = at;
  }
  return until;
}

function offers(catalog: Catalog | undefined, feature: string): boolean {
  return catalog?.features.has(feature) === true;
}

function refuse(reason: Reason, sentence: string): Outcome {
  return {
    decision: "DENY",
    reason,
    deciding: undefined,
    violations: [sentence],
    exceeded: [],
    grant: undefined,
    comparedUsage: false,
    holdsUntilMs: Number.POSITIVE_INFINITY,
  };
}

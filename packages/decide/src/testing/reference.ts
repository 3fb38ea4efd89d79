import type { Decision, Facts, Question, Reason } from "../decide.ts";
import type { License, LicenseStatus, Limit } from "../entitlement.ts";

const day = 86_400_000;

/** What the rules come to: the answer, the license that gave it, and each limit that it names, as `metric window current`. */
export interface ReferenceAnswer {
  readonly decision: Decision;
  readonly reason: Reason;
  readonly license: string | undefined;
  readonly exceeded: readonly string[];
}

/**
 * The rules of decisions once more, slowly, in another shape than `decide`: the answers are tried one after the other, and
 * for each the licenses are searched for one that it fits. Quantities are counted in halves, windows are compared as texts.
 */
export function reference(question: Question, facts: Facts, now: number): ReferenceAnswer {
  const { feature, product } = question;
  const held = (facts.snapshot?.licenses ?? []).filter((own) => product === undefined || own.product === product);
  if (held.length === 0) return { decision: "DENY", reason: "NO_LICENSE", license: undefined, exceeded: [] };

  const policy = (own: License) => facts.catalogs.get(own.product)?.features.get(feature);
  const candidates = held.filter((own) => own.features.has(feature) || own.grants.has(feature) || policy(own));
  const granted = (own: License) => {
    const grant = own.grants.get(feature);
    return grant !== undefined && !isPast(grant.expiresAtMs, now);
  };
  const gives = (own: License) =>
    own.features.has(feature) || (own.features.has("*") && policy(own) !== undefined) || granted(own);
  const is = (own: License, ...statuses: LicenseStatus[]) => statuses.includes(statusAt(own, now));
  const broken = (own: License) => exceededOf(own, question, facts, now).filter(({ hard }) => hard);
  const allows = (own: License) => is(own, "ACTIVE", "PAST_DUE", "GRACE") && gives(own) && broken(own).length === 0;
  const reduces = (own: License) => is(own, "SUSPENDED", "EXPIRED") && gives(own) && policy(own)?.reduceOnly === true;
  const fresh = (own: License) =>
    facts.overdueMs < 0 || facts.overdueMs < (policy(own) === undefined ? 300_000 : (policy(own)?.failGraceMs ?? 0));

  const table: readonly [Decision, Reason, (own: License) => boolean][] = [
    ["ALLOW", "ALLOWED", (own) => fresh(own) && allows(own) && is(own, "ACTIVE")],
    ["ALLOW", "ALLOWED_PAST_DUE", (own) => fresh(own) && allows(own) && is(own, "PAST_DUE")],
    ["ALLOW", "ALLOWED_IN_GRACE", (own) => fresh(own) && allows(own)],
    ["ALLOW_REDUCE_ONLY", "LICENSE_SUSPENDED", (own) => fresh(own) && reduces(own) && is(own, "SUSPENDED")],
    ["ALLOW_REDUCE_ONLY", "LICENSE_EXPIRED", (own) => fresh(own) && reduces(own)],
    ["DENY", "FACTS_TOO_OLD", (own) => allows(own) || reduces(own)],
    ["DENY", "LICENSE_REVOKED", (own) => is(own, "REVOKED")],
    ["DENY", "LICENSE_SUSPENDED", (own) => is(own, "SUSPENDED")],
    ["DENY", "LICENSE_EXPIRED", (own) => is(own, "EXPIRED")],
    ["DENY", "LICENSE_CANCELLED", (own) => is(own, "CANCELLED")],
    ["DENY", "LICENSE_NOT_YET_VALID", (own) => is(own, "PENDING")],
    ["DENY", "LIMIT_EXCEEDED", gives],
    ["DENY", "FEATURE_NOT_IN_PLAN", () => true],
  ];
  for (const [decision, reason, fits] of table) {
    const found = candidates.find(fits);
    if (found === undefined) continue;
    const looksAtLimits = is(found, "ACTIVE", "PAST_DUE", "GRACE") && gives(found);
    const exceeded = looksAtLimits ? exceededOf(found, question, facts, now).map(({ text }) => text) : [];
    return { decision, reason, license: found.id, exceeded };
  }
  return { decision: "DENY", reason: "FEATURE_NOT_IN_PLAN", license: undefined, exceeded: [] };
}

function isPast(at: number | undefined, now: number): boolean {
  return at !== undefined && now >= at;
}

function statusAt(own: License, now: number): LicenseStatus {
  const endsAt = own.validUntilMs === undefined ? undefined : own.validUntilMs + own.graceDays * day;
  const suspendsAt = own.unpaidGraceUntilMs;
  const suspendsFirst = suspendsAt !== undefined && (endsAt === undefined || suspendsAt < endsAt);
  const table: readonly [LicenseStatus, boolean][] = [
    ["CANCELLED", own.status === "CANCELLED"],
    ["REVOKED", own.status === "REVOKED"],
    ["CANCELLED", isPast(own.cancelsAtMs, now)],
    ["SUSPENDED", own.status === "SUSPENDED"],
    ["PENDING", !isPast(own.validFromMs, now)],
    ["SUSPENDED", suspendsFirst && isPast(suspendsAt, now)],
    ["EXPIRED", isPast(endsAt, now)],
    ["GRACE", suspendsAt !== undefined || isPast(own.validUntilMs, now)],
    ["PAST_DUE", own.status === "PAST_DUE"],
  ];
  return table.find(([, holds]) => holds)?.[0] ?? "ACTIVE";
}

function exceededOf(own: License, { values }: Question, facts: Facts, now: number): { text: string; hard: boolean }[] {
  return own.limits.flatMap((limit) => {
    const { metric, window, maximum, enforcement } = limit;
    if (maximum === undefined) return [];
    const value = values.get(`${metric}/${window.toLowerCase()}`) ?? values.get(metric);
    const told = (current: number) => ({
      text: `${metric} ${window} ${current / 2} ${value === undefined ? "USAGE" : "CONTEXT"}`,
      hard: enforcement === "HARD",
    });
    const most = Number(maximum) * 2;
    if (value !== undefined) return Number(value) * 2 > most ? [told(Number(value) * 2)] : [];
    if (facts.usage === undefined || window === "GAUGE" || window === "PER_SECOND") return [];
    const used = usedHalves(own, limit, facts, now);
    return used >= most ? [told(used)] : [];
  });
}

function usedHalves(own: License, { metric, window }: Limit, facts: Facts, now: number): number {
  const digits = window === "PER_DAY" ? "2030-06-01".length : "2030-06".length;
  const present = new Date(now).toISOString().slice(0, digits);
  let halves = 0;
  for (const counter of facts.usage?.levels.get(metric) ?? []) {
    const { windowStartMs, licenseId, used } = counter;
    const began = windowStartMs === undefined ? present : new Date(windowStartMs).toISOString().slice(0, digits);
    const concerns = counter.window === window && (licenseId === undefined || licenseId === own.id);
    if (concerns && began >= present) halves += Number(used) * 2;
  }
  return halves;
}

import { invalidArgument } from "@licet/platform/errors";
import { failure } from "../errors.ts";
import type { HeldAddOn } from "./add-on.ts";
import { checkAddOns, checkCurrency, type GivenTerms, withAddOns } from "./effective-terms.ts";
import { type FeatureList, type Grant, keptUnder, listsFeature, withGrant, withoutGrant } from "./grant.ts";
import { DAY_MS, type DecidedStatus, type License, type LicenseStatus, statusAt } from "./license.ts";
import { billingCycleFor, checkEnd, checkPlanFor, checkPlanOffered, planBase } from "./provision.ts";
import { toldAt } from "./schedule.ts";
import { type Cycle, type Limit, type Plan, type PlanTerms, termEnd } from "./terms.ts";
import { checkLives, checkTransition, refuseActivation } from "./transitions.ts";

// What people and billing can do to a license. Each function takes a license of which all that the clock did is settled,
// and returns the one behind the change; it throws where the transition table has no way.

/** The fields that an update can name; see `UpdateLicenseRequest` of the contract. */
export interface LicenseUpdate {
  metadata?: Readonly<Record<string, string>>;
  /** `unlimited` takes the bound away. */
  seats?: number | "unlimited";
  autoRenew?: boolean;
  graceDays?: number;
  features?: readonly string[];
  limits?: readonly Limit[];
  /** All that it holds from then on. */
  addOns?: readonly HeldAddOn[];
  /** Takes back a cancellation at the end. */
  keep?: boolean;
}

/** How the payment of a license stands, as billing knows it. */
export type PaymentStanding =
  | { kind: "paid" }
  | { kind: "past_due" }
  | { kind: "grace"; until: Date }
  | { kind: "unpaid" };

/** Until when a renewed license runs: a time, or so many days (0: the plan's term) from its end or from now. */
export type NewEnd = { until: Date } | { from: "expiry" | "now"; days: number };

/** Stops a license until it is resumed. */
export function suspend(license: License, reason: string, now: Date): License {
  checkTransition(license.licenseId, statusAt(license, now), "suspended");
  return changed(license, decided(license, "suspended", reason), now);
}

/** Puts a suspended license in force again, whoever suspended it; where its validity is over, it is expired. */
export function resume(license: License, now: Date): License {
  const from = statusAt(license, now);
  if (from !== "suspended") refuseActivation(license.licenseId, from, "only a suspended license can be resumed");
  return changed(license, decided(license, "active", ""), now);
}

/** Ends a license at once by the vendor's will. */
export function revoke(license: License, reason: string, now: Date): License {
  return ended(license, "revoked", reason, now);
}

/** Ends a license by the customer's will: now, or at its end where that lies ahead. */
export function cancel(license: License, atEnd: boolean, reason: string, now: Date): License {
  const { licenseId, validUntil } = license;
  checkTransition(licenseId, statusAt(license, now), "cancelled");
  if (!atEnd) return ended(license, "cancelled", reason, now);
  if (!validUntil) throw withoutEnd(licenseId, "cancelled at; cancel it now");
  if (validUntil <= now) return ended(license, "cancelled", reason, now);
  return changed(license, { ...license, cancellation: { at: validUntil, reason } }, now);
}

/**
 * Gives a license a new end. One in grace or expired is active again, and whatever was owed counts as settled.
 *
 * @param terms - of its plan version; undefined for a bare license, which then needs the days of the term
 */
export function renew(license: License, end: NewEnd, terms: PlanTerms | undefined, now: Date): License {
  const from = statusAt(license, now);
  checkTransitionFromEnded(license.licenseId, from);
  const validUntil = "until" in end ? end.until : endOfTerm(license, end, terms, now);
  const field = "until" in end ? "valid_until" : "term_from";
  const after = Math.max(now.getTime(), license.validFrom.getTime());
  if (validUntil.getTime() <= after) {
    const when = `${validUntil.toISOString()}, which must be later than ${new Date(after).toISOString()}`;
    throw invalidArgument(field, `the license would end at ${when}`);
  }
  checkEnd(field, validUntil, license.graceDays);
  return changed(license, withNewEnd(license, from, validUntil), now);
}

/**
 * Gives a license another plan version; where a trial becomes none, a term of the plan begins. Grants that the license
 * then neither has anyway nor may have end.
 *
 * @param wanted.addOns - all that it holds from then on, sold with that plan
 */
export function changePlan(
  license: License,
  plan: Plan,
  wanted: { seats?: number; billingCycle?: Cycle; addOns: readonly HeldAddOn[] },
  now: Date,
): License {
  const { terms } = plan;
  const from = statusAt(license, now);
  checkLives(license.licenseId, from);
  checkPlanFor(plan, license.customerId);
  // A license that has the plan may get another version of it, and stays what it is: on a retired plan.
  if (license.plan?.code !== plan.plan) checkPlanOffered(plan);
  const { seats: _, billingCycle: __, ...rest } = license;
  const base = planBase(terms, wanted.seats);
  checkAddOns(base, wanted.addOns, "add_ons.orders");
  checkCurrency(wanted.addOns, terms, "add_ons.orders");
  const given = withAddOns(base, wanted.addOns);
  const billingCycle = nextBillingCycle(license, wanted.billingCycle, terms);
  const onPlan: License = {
    ...rest,
    plan: { code: plan.plan, version: plan.version },
    type: terms.type,
    ...given,
    attributes: terms.attributes,
    grants: keptUnder(license.grants, { features: given.features, grantable: terms.grantable }),
    ...(billingCycle && { billingCycle }),
  };
  if (license.type !== "trial" || terms.type === "trial") return changed(license, onPlan, now);
  const validFrom = from === "pending" ? license.validFrom : now;
  const validUntil = termEnd(validFrom, terms.termDays);
  checkEnd("plan", validUntil, license.graceDays);
  return changed(license, { ...withNewEnd(onPlan, from, validUntil), validFrom }, now);
}

/** Gives a trial so many days more, from its end or from now, whichever is later. */
export function extendTrial(license: License, days: number, now: Date): License {
  const { licenseId, type, validUntil } = license;
  const from = statusAt(license, now);
  checkTransitionFromEnded(licenseId, from);
  if (type !== "trial") {
    const message = `License ${licenseId} is ${type}; only a trial can be extended. Renew it instead.`;
    throw failure("NOT_A_TRIAL", message, { type });
  }
  if (!validUntil) throw withoutEnd(licenseId, "extended from");
  const end = new Date(Math.max(validUntil.getTime(), now.getTime()) + days * DAY_MS);
  checkEnd("days", end, license.graceDays);
  return changed(license, withNewEnd(license, from, end), now);
}

/**
 * Grants a license a feature of its product, or changes the grant that it has of it.
 *
 * @param grantable - what its plan version lets be granted; undefined for a bare license, which may be granted all
 */
export function activateFeature(
  license: License,
  wanted: Omit<Grant, "activatedAt">,
  grantable: FeatureList | undefined,
  now: Date,
): License {
  const { licenseId, plan, grants } = license;
  checkLives(licenseId, statusAt(license, now));
  if (plan && !listsFeature(grantable ?? [], wanted.feature)) {
    const { feature } = wanted;
    const message = `Plan ${plan.code} in version ${plan.version} does not let feature ${feature} be granted.`;
    throw failure("GRANT_NOT_ALLOWED", message, { feature, plan: plan.code, plan_version: `${plan.version}` });
  }
  return changed(license, { ...license, grants: withGrant(licenseId, grants, wanted, now) }, now);
}

/** Takes the grant of a feature from a license. */
export function deactivateFeature(license: License, feature: string, now: Date): License {
  const { licenseId, plan, grants, features, base } = license;
  checkLives(licenseId, statusAt(license, now));
  const after = withoutGrant(grants, feature);
  if (after.length < grants.length) return changed(license, { ...license, grants: after }, now);
  if (!listsFeature(features, feature)) {
    throw failure("GRANT_NOT_FOUND", `License ${licenseId} has no grant of feature ${feature}.`);
  }
  const extra = listsFeature(base.features, feature) ? "" : "an add-on to ";
  const by = plan ? `${extra}plan ${plan.code}` : "terms of its own";
  const message = `License ${licenseId} has feature ${feature} by ${by}, not by a grant; only a grant can be deactivated.`;
  throw failure("FEATURE_IN_PLAN", message, { feature, plan: plan?.code ?? "" });
}

/** Makes of a license what billing knows about its payment. */
export function setPaymentStanding(license: License, standing: PaymentStanding, reason: string, now: Date): License {
  const { licenseId } = license;
  const from = statusAt(license, now);
  switch (standing.kind) {
    case "paid":
      checkOwed(license, from);
      return changed(license, decided(license, "active", ""), now);
    case "past_due":
      checkTransition(licenseId, from, "past_due");
      return changed(license, decided(license, "past_due", reason), now);
    case "grace": {
      checkTransition(licenseId, from, "grace");
      if (standing.until <= now) {
        throw invalidArgument("grace_until", `must be later than now, ${now.toISOString()}`);
      }
      const unpaid = { ...decided(license, "past_due", reason), unpaidGraceUntil: standing.until };
      return changed(license, unpaid, now);
    }
    case "unpaid":
      checkTransition(licenseId, from, "suspended");
      return changed(license, { ...decided(license, "suspended", reason), suspendedByBilling: true }, now);
  }
}

/** Gives a license to another customer. */
export function transfer(license: License, toCustomerId: string, now: Date): License {
  checkLives(license.licenseId, statusAt(license, now));
  if (license.customerId === toCustomerId) {
    throw invalidArgument("to_customer_id", "must be another customer: this one holds the license");
  }
  return changed(license, { ...license, customerId: toCustomerId }, now);
}

/** Changes what an update names. */
export function update(license: License, named: LicenseUpdate, now: Date): License {
  checkLives(license.licenseId, statusAt(license, now));
  const { seats, keep, features, limits, addOns = license.addOns, ...rest } = named;
  if (license.plan && (features || limits)) {
    const field = features ? "features" : "limits";
    throw invalidArgument("update_mask", `must not name ${field}: they are the plan's; use ChangePlan`);
  }
  if (named.autoRenew && !license.validUntil) {
    throw invalidArgument("auto_renew", "must be false: the license has no end");
  }
  const { seats: _, cancellation, base: before, ...kept } = license;
  const nextSeats = seats === undefined ? before.seats : seats === "unlimited" ? undefined : seats;
  const base: GivenTerms = {
    features: features ?? before.features,
    limits: limits ?? before.limits,
    ...(nextSeats !== undefined && { seats: nextSeats }),
  };
  if (nextSeats === undefined && !named.addOns && addOns.some((held) => held.seats > 0)) {
    throw invalidArgument("seats", "must be given: add-ons of the license add seats to them");
  }
  checkAddOns(base, addOns, "add_ons");
  const after: License = {
    ...kept,
    ...rest,
    ...withAddOns(base, addOns),
    ...(cancellation && !keep && { cancellation }),
  };
  if (named.graceDays !== undefined) checkEnd("grace_days", after.validUntil, after.graceDays);
  return changed(license, after, now);
}

/** The license behind a change that the table allows, with what is told of it. */
function changed(before: License, after: License, now: Date): License {
  const to = statusAt(after, now);
  const from = statusAt(before, now);
  if (from !== to) checkTransition(before.licenseId, from, to);
  const sameEnd = before.validUntil?.getTime() === after.validUntil?.getTime();
  const told = sameEnd && before.told ? { ...before.told, status: to } : toldAt(after, now);
  return { ...after, told, updatedAt: now, revision: before.revision + 1n };
}

function decided(license: License, status: DecidedStatus, reason: string): License {
  const { unpaidGraceUntil: _, ...rest } = license;
  return { ...rest, decidedStatus: status, statusReason: reason, suspendedByBilling: false };
}

function ended(license: License, to: "cancelled" | "revoked", reason: string, now: Date): License {
  checkTransition(license.licenseId, statusAt(license, now), to);
  const { cancellation: _, ...rest } = decided(license, to, reason);
  return changed(license, { ...rest, endedAt: now }, now);
}

function withNewEnd(license: License, from: LicenseStatus, validUntil: Date): License {
  const over = from === "grace" || from === "expired";
  const { cancellation: _, ...rest } = over ? decided(license, "active", "") : license;
  return { ...rest, validUntil };
}

function endOfTerm(
  license: License,
  { from, days }: { from: "expiry" | "now"; days: number },
  terms: PlanTerms | undefined,
  now: Date,
): Date {
  if (!terms && days === 0) throw invalidArgument("term_days", "is required: the license has no plan to take it from");
  if (from === "expiry" && !license.validUntil) throw withoutEnd(license.licenseId, "renewed from; renew it from now");
  const begin = from === "now" ? now : (license.validUntil as Date);
  return termEnd(begin, days || (terms?.termDays ?? 0));
}

/** What ended for good can't be active again; the refusal names that as what was wanted. */
function checkTransitionFromEnded(licenseId: string, from: LicenseStatus): void {
  if (from === "cancelled" || from === "revoked") checkTransition(licenseId, from, "active");
}

function checkOwed(license: License, from: LicenseStatus): void {
  if (license.decidedStatus === "past_due" && from !== "expired") return;
  if (license.decidedStatus === "suspended" && license.suspendedByBilling) return;
  const needs =
    from === "suspended"
      ? "it was suspended by the vendor, and a payment does not lift that; resume it"
      : "only one that is past due, in grace for a payment or suspended for one can be paid";
  refuseActivation(license.licenseId, from, needs);
}

function nextBillingCycle(license: License, wanted: Cycle | undefined, terms: PlanTerms): Cycle | undefined {
  if (wanted) return billingCycleFor(wanted, terms);
  const kept = license.billingCycle === "year" && terms.price?.cycle === "month" ? undefined : license.billingCycle;
  return billingCycleFor(terms.price ? kept : undefined, terms);
}

function withoutEnd(licenseId: string, what: string) {
  return failure("LICENSE_WITHOUT_END", `License ${licenseId} never ends, so it has no end to be ${what}.`);
}

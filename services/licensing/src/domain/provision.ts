import { invalidArgument } from "@licet/platform/errors";
import { failure } from "../errors.ts";
import type { HeldAddOn } from "./add-on.ts";
import { checkAddOns, type GivenTerms, withAddOns } from "./effective-terms.ts";
import { graceUntil, type License } from "./license.ts";
import { toldAt } from "./schedule.ts";
import { type Cycle, type Plan, type PlanTerms, termEnd } from "./terms.ts";

/** The last moment that a protobuf timestamp can hold. */
const LAST_MS = Date.parse("9999-12-31T23:59:59.999Z");

/**
 * Refuses an end that the wire could not carry, its grace included.
 *
 * @throws ServiceError INVALID_ARGUMENT that names the field
 */
export function checkEnd(field: string, validUntil: Date | undefined, graceDays: number): void {
  const graceEnd = graceUntil({ ...(validUntil && { validUntil }), graceDays });
  if (graceEnd && !(graceEnd.getTime() <= LAST_MS)) {
    throw invalidArgument(field, "must be earlier: the license and its grace would end after the year 9999");
  }
}

/**
 * Refuses a plan that is for one customer to all others.
 *
 * @throws ServiceError FAILED_PRECONDITION `PLAN_FOR_OTHER_CUSTOMER`
 */
export function checkPlanFor(plan: Pick<Plan, "plan" | "product" | "customerId">, customerId: string): void {
  if (plan.customerId === undefined || plan.customerId === customerId) return;
  const message = `Plan ${plan.plan} of ${plan.product} is for another customer than ${customerId}; only that one can be given it.`;
  throw failure("PLAN_FOR_OTHER_CUSTOMER", message);
}

/**
 * Refuses a plan that was retired, to licenses that don't have it.
 *
 * @throws ServiceError FAILED_PRECONDITION `PLAN_RETIRED`
 */
export function checkPlanOffered(plan: Plan): void {
  if (!plan.retiredAt) return;
  const message = `Plan ${plan.plan} of ${plan.product} was retired at ${plan.retiredAt.toISOString()}; choose another one.`;
  throw failure("PLAN_RETIRED", message);
}

/** What a provisioning asks for, whatever the terms. */
export interface Wanted {
  licenseId: string;
  customerId: string;
  product: string;
  graceDays: number;
  validFrom: Date;
  validUntil?: Date;
  seats?: number;
  billingCycle?: Cycle;
  autoRenew: boolean;
  metadata: Readonly<Record<string, string>>;
  now: Date;
}

/** The terms of a license without a plan. */
export type BareTerms = Pick<PlanTerms, "features" | "limits">;

/**
 * A license by a plan version: it ends after the plan's term, has the plan's seats and is billed in the price's own
 * cycle where nothing else is wanted.
 *
 * @throws ServiceError INVALID_ARGUMENT when it would end before it begins, or its billing does not fit its price;
 * FAILED_PRECONDITION `PLAN_RETIRED`, `PLAN_FOR_OTHER_CUSTOMER`
 */
export function planLicense(wanted: Wanted, plan: Plan, addOns: readonly HeldAddOn[] = []): License {
  checkPlanFor(plan, wanted.customerId);
  checkPlanOffered(plan);
  const { terms } = plan;
  const billingCycle = billingCycleFor(wanted.billingCycle, terms);
  const base = planBase(terms, wanted.seats);
  checkAddOns(base, addOns, "add_ons");
  return {
    ...common(wanted, wanted.validUntil ?? termEnd(wanted.validFrom, terms.termDays)),
    plan: { code: plan.plan, version: plan.version },
    type: terms.type,
    ...withAddOns(base, addOns),
    attributes: terms.attributes,
    ...(billingCycle && { billingCycle }),
  };
}

/**
 * A license with terms of its own, which costs nothing here.
 *
 * @throws ServiceError INVALID_ARGUMENT when it would end before it begins, or a billing cycle is wanted
 */
export function bareLicense(wanted: Wanted & { validUntil: Date }, terms: BareTerms): License {
  if (wanted.billingCycle) throw invalidArgument("billing_cycle", "must be unspecified when no plan is given");
  return {
    ...common(wanted, wanted.validUntil),
    type: "custom",
    ...withAddOns(
      {
        features: terms.features,
        limits: terms.limits,
        ...(wanted.seats !== undefined && { seats: wanted.seats }),
      },
      [],
    ),
    attributes: {},
  };
}

/** What a license by a plan gives without add-ons; with the plan's seats where no number is wanted. */
export function planBase({ features, limits, seats }: PlanTerms, wantedSeats: number | undefined): GivenTerms {
  const sold = wantedSeats ?? seats;
  return { features, limits, ...(sold !== undefined && { seats: sold }) };
}

function common(wanted: Wanted, validUntil: Date | undefined) {
  if (validUntil && validUntil <= wanted.validFrom) {
    throw invalidArgument(
      "valid_until",
      `must be later than the license's begin, ${wanted.validFrom.toISOString()}; it is ${validUntil.toISOString()}`,
    );
  }
  checkEnd(wanted.validUntil ? "valid_until" : "valid_from", validUntil, wanted.graceDays);
  if (wanted.autoRenew && !validUntil) throw invalidArgument("auto_renew", "must be false: the license has no end");
  const { now } = wanted;
  const license = {
    licenseId: wanted.licenseId,
    customerId: wanted.customerId,
    product: wanted.product,
    decidedStatus: "active",
    statusReason: "",
    suspendedByBilling: false,
    validFrom: wanted.validFrom,
    ...(validUntil && { validUntil }),
    graceDays: wanted.graceDays,
    autoRenew: wanted.autoRenew,
    grants: [],
    metadata: wanted.metadata,
    createdAt: now,
    updatedAt: now,
    revision: 1n,
  } as const;
  return { ...license, told: toldAt(license, now) };
}

/**
 * The cycle that a license by a plan is billed in. A price for a year may be billed in months (product.md, Money); one
 * for a month can't be billed in years.
 *
 * @param wanted - undefined: the price's own
 * @throws ServiceError INVALID_ARGUMENT when the cycle does not fit the price
 */
export function billingCycleFor(wanted: Cycle | undefined, terms: PlanTerms): Cycle | undefined {
  if (!terms.price) {
    if (wanted) throw invalidArgument("billing_cycle", "must be unspecified: the plan has no price");
    return undefined;
  }
  if (wanted === "year" && terms.price.cycle === "month") {
    throw invalidArgument("billing_cycle", "must be CYCLE_MONTH or unspecified: the plan's price is for a month");
  }
  return wanted ?? terms.price.cycle;
}

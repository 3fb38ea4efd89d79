import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { Transaction } from "kysely";
import { addOnsOnPlan } from "./add-ons.ts";
import type { AddOnOrder } from "./domain/add-on.ts";
import * as lifecycle from "./domain/lifecycle.ts";
import type { Cycle } from "./domain/terms.ts";
import type { Decide } from "./lifecycle.ts";
import { getPlan } from "./store/catalog.ts";
import type { DB } from "./store/schema.ts";

// What can be decided about one license by itself or about many: for changeLicense.

/** Stops a license until it is resumed. */
export function suspending(reason: string): Decide {
  return (license, now) => ({
    cause: LicenseChangeCause.SUSPENDED,
    license: lifecycle.suspend(license, reason, now),
  });
}

/** Puts a suspended license in force again. */
export const resuming: Decide = (license, now) => ({
  cause: LicenseChangeCause.RESUMED,
  license: lifecycle.resume(license, now),
});

/** Gives a license a new end. */
export function renewing(tx: Transaction<DB>, tenant: string, end: lifecycle.NewEnd): Decide {
  return async (license, now) => {
    const { plan, product } = license;
    const terms = plan && (await getPlan(tx, tenant, product, plan.code, plan.version)).terms;
    return { cause: LicenseChangeCause.RENEWED, license: lifecycle.renew(license, end, terms, now) };
  };
}

/** Which plan version a license is to get. */
export interface WantedPlan {
  readonly plan: string;
  /** The latest when 0. */
  readonly planVersion: number;
  /** Without those of add-ons; the plan's when absent. */
  readonly seats?: number;
  readonly billingCycle?: Cycle;
  /** All the add-ons that it is to hold; those that it holds when absent. */
  readonly orders?: readonly AddOnOrder[];
}

/** Puts a license on another plan version of its product. */
export function changingPlan(tx: Transaction<DB>, tenant: string, { orders, ...wanted }: WantedPlan): Decide {
  return async (license, now) => {
    const plan = await getPlan(tx, tenant, license.product, wanted.plan, wanted.planVersion);
    const addOns = await addOnsOnPlan(tx, tenant, license, plan, orders);
    const changed = lifecycle.changePlan(license, plan, { ...wanted, addOns }, now);
    return { cause: LicenseChangeCause.PLAN_CHANGED, license: changed };
  };
}

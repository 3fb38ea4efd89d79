import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { Transaction } from "kysely";
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

/** Puts a license on another plan version of its product; the latest when `planVersion` is 0. */
export function changingPlan(
  tx: Transaction<DB>,
  tenant: string,
  wanted: {
    readonly plan: string;
    readonly planVersion: number;
    readonly seats?: number;
    readonly billingCycle?: Cycle;
  },
): Decide {
  return async (license, now) => {
    const plan = await getPlan(tx, tenant, license.product, wanted.plan, wanted.planVersion);
    return { cause: LicenseChangeCause.PLAN_CHANGED, license: lifecycle.changePlan(license, plan, wanted, now) };
  };
}

import { type License, type LicenseStatus, statusAt } from "./license.ts";
import type { NewEnd } from "./lifecycle.ts";

/** Which licenses something is about: those for which each part that is not empty holds; see `LicenseSelection`. */
export interface Selection {
  readonly product: string;
  readonly plan: string;
  readonly planVersions: readonly number[];
  /** Where they stand, which follows from the clock: whoever reads the licenses looks at it. */
  readonly statuses: readonly LicenseStatus[];
  readonly customerIds: readonly string[];
  /** In lower case. */
  readonly licenseIds: readonly string[];
}

/** The selection of all licenses. */
export const everything: Selection = {
  product: "",
  plan: "",
  planVersions: [],
  statuses: [],
  customerIds: [],
  licenseIds: [],
};

/** What a bulk operation does to each license. */
export type BulkChange =
  | { readonly action: "suspend" }
  | { readonly action: "resume" }
  | { readonly action: "renew"; readonly end: NewEnd }
  | {
      readonly action: "migrate";
      readonly plan: string;
      readonly planVersion: number;
      /** Whether the license keeps its number of seats; the plan's otherwise. */
      readonly keepSeats: boolean;
    };

/** Whether a license is selected, as it stands now. */
export function isSelected(license: License, selection: Selection, now: Date): boolean {
  const { product, plan, planVersions, statuses, customerIds, licenseIds } = selection;
  return (
    (product === "" || license.product === product) &&
    (plan === "" || license.plan?.code === plan) &&
    holds(planVersions, license.plan?.version) &&
    holds(statuses, statusAt(license, now)) &&
    holds(customerIds, license.customerId) &&
    holds(licenseIds, license.licenseId)
  );
}

function holds<T>(wanted: readonly T[], value: T | undefined): boolean {
  return wanted.length === 0 || (value !== undefined && wanted.includes(value));
}

/** Whether a license is already as a migration would make it. */
export function isMigrated({ plan }: License, change: BulkChange): boolean {
  return change.action === "migrate" && plan?.code === change.plan && plan.version === change.planVersion;
}

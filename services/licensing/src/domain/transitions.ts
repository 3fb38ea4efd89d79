import { failure } from "../errors.ts";
import type { LicenseStatus } from "./license.ts";

/** The one transition table of licenses: from each status, the statuses it can go to (product.md, Vocabulary). */
export const transitions: Readonly<Record<LicenseStatus, readonly LicenseStatus[]>> = {
  pending: ["active", "cancelled", "revoked"],
  active: ["past_due", "grace", "suspended", "expired", "cancelled", "revoked"],
  past_due: ["active", "grace", "suspended", "cancelled", "revoked"],
  grace: ["active", "expired", "suspended", "cancelled", "revoked"],
  suspended: ["active", "expired", "cancelled", "revoked"],
  expired: ["active", "cancelled", "revoked"],
  cancelled: [],
  revoked: [],
};

/**
 * Refuses to resume what is not suspended. The table's other ways to active are not resuming: a beginning, a payment, a
 * renewal.
 *
 * @throws ServiceError FAILED_PRECONDITION `TRANSITION_NOT_ALLOWED` as {@link checkTransition}
 */
export function checkResumable(licenseId: string, from: LicenseStatus): void {
  if (from === "suspended") return;
  const message = `License ${licenseId} is ${from}; only a suspended license can be resumed.`;
  const allowed = transitions[from].filter((status) => status !== "active").join(",");
  throw failure("TRANSITION_NOT_ALLOWED", message, { from, to: "active", allowed });
}

/**
 * Refuses a transition that the table does not have.
 *
 * @throws ServiceError FAILED_PRECONDITION `TRANSITION_NOT_ALLOWED` with `from`, `to` and what is `allowed`
 */
export function checkTransition(licenseId: string, from: LicenseStatus, to: LicenseStatus): void {
  const allowed = transitions[from];
  if (allowed.includes(to)) return;
  const can = allowed.length > 0 ? `can only become ${allowed.join(", ")}` : "can't change any more";
  throw failure("TRANSITION_NOT_ALLOWED", `License ${licenseId} is ${from} and ${can}, not ${to}.`, {
    from,
    to,
    allowed: allowed.join(","),
  });
}

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

/**
 * Refuses to go to active by something that is no way there although the table has one: what resumes only lifts a
 * suspension, what pays only a debt; a beginning and a renewal are the table's other ways.
 *
 * @param needs - what would be needed, as in `only a suspended license can be resumed`
 * @throws ServiceError FAILED_PRECONDITION `TRANSITION_NOT_ALLOWED` as {@link checkTransition}
 */
export function refuseActivation(licenseId: string, from: LicenseStatus, needs: string): never {
  const allowed = transitions[from].filter((status) => status !== "active").join(",");
  const message = `License ${licenseId} is ${from}; ${needs}.`;
  throw failure("TRANSITION_NOT_ALLOWED", message, { from, to: "active", allowed });
}

/**
 * Refuses to change what ended for good.
 *
 * @throws ServiceError FAILED_PRECONDITION `TRANSITION_NOT_ALLOWED` with `from` and `to` the same and nothing `allowed`
 */
export function checkLives(licenseId: string, status: LicenseStatus): void {
  if (transitions[status].length > 0) return;
  const message = `License ${licenseId} is ${status} and can't change any more.`;
  throw failure("TRANSITION_NOT_ALLOWED", message, { from: status, to: status, allowed: "" });
}

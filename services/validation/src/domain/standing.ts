import type { License, LicenseStatus } from "./entitlement.ts";

const dayMs = 86_400_000;

/** Where a license stands at one moment. */
export interface Standing {
  readonly status: LicenseStatus;
  /** When its grace ends, in epoch milliseconds; only while in grace. */
  readonly graceUntilMs: number | undefined;
}

/**
 * Where a license stands now. What somebody decided (suspended, cancelled,
 * revoked) stays; the rest follows from the times and the clock: pending before
 * `validFrom`; then in force until `validUntil`, past due where a payment
 * failed; then in grace while its days last; then expired. Beginnings are
 * included, ends are not.
 */
export function standingAt(license: License, nowMs: number): Standing {
  switch (license.status) {
    case "SUSPENDED":
    case "CANCELLED":
    case "REVOKED":
      return standing(license.status);
    case "PENDING":
    case "ACTIVE":
    case "PAST_DUE":
    case "GRACE":
    case "EXPIRED":
      return inForceAt(license, nowMs);
  }
}

/** When the grace of a license ends, in epoch milliseconds; undefined: it has no end. */
export function graceEndMs(license: License): number | undefined {
  return license.validUntilMs === undefined ? undefined : license.validUntilMs + license.graceDays * dayMs;
}

function inForceAt(license: License, nowMs: number): Standing {
  if (nowMs < license.validFromMs) return standing("PENDING");
  if (license.validUntilMs === undefined || nowMs < license.validUntilMs) {
    return standing(license.status === "PAST_DUE" ? "PAST_DUE" : "ACTIVE");
  }
  const graceUntilMs = graceEndMs(license);
  if (graceUntilMs !== undefined && nowMs < graceUntilMs) return { status: "GRACE", graceUntilMs };
  return standing("EXPIRED");
}

function standing(status: LicenseStatus): Standing {
  return { status, graceUntilMs: undefined };
}

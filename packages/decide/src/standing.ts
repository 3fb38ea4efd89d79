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
 * revoked) stays, and a cancellation that was asked for takes effect at its
 * time; the rest follows from the times and the clock: pending before
 * `validFrom`; then in force until `validUntil`, past due where a payment
 * failed, in grace and then suspended where billing gave one for it; then in
 * grace while its days last; then expired. Beginnings are included, ends are
 * not. Licensing's `phasesOf` is the same rule.
 */
export function standingAt(license: License, nowMs: number): Standing {
  if (license.status === "CANCELLED" || license.status === "REVOKED") return standing(license.status);
  const { cancelsAtMs } = license;
  if (cancelsAtMs !== undefined && nowMs >= cancelsAtMs) return standing("CANCELLED");
  return license.status === "SUSPENDED" ? standing("SUSPENDED") : inForceAt(license, nowMs);
}

/** When the grace of a license ends, in epoch milliseconds; undefined: it has no end. */
export function graceEndMs(license: License): number | undefined {
  return license.validUntilMs === undefined ? undefined : license.validUntilMs + license.graceDays * dayMs;
}

/**
 * The first moment after `nowMs` at which the clock alone may change where a license stands; Infinity: never. It may name
 * a moment at which nothing changes, and never one too late.
 */
export function standsUntilMs(license: License, nowMs: number): number {
  const { validFromMs, validUntilMs, cancelsAtMs, unpaidGraceUntilMs } = license;
  let until = Number.POSITIVE_INFINITY;
  for (const at of [validFromMs, validUntilMs, graceEndMs(license), cancelsAtMs, unpaidGraceUntilMs]) {
    if (at !== undefined && at > nowMs && at < until) until = at;
  }
  return until;
}

function inForceAt(license: License, nowMs: number): Standing {
  if (nowMs < license.validFromMs) return standing("PENDING");
  const { unpaidGraceUntilMs, validUntilMs } = license;
  const endMs = graceEndMs(license) ?? Number.POSITIVE_INFINITY;
  // A grace for a payment that ends with the license or later suspends nothing: by then it has expired.
  const unpaidEndMs = unpaidGraceUntilMs !== undefined && unpaidGraceUntilMs < endMs ? unpaidGraceUntilMs : undefined;
  if (unpaidEndMs !== undefined && nowMs >= unpaidEndMs) return standing("SUSPENDED");
  if (nowMs >= endMs) return standing("EXPIRED");
  const graceUntilMs = unpaidEndMs ?? endMs;
  if (unpaidGraceUntilMs !== undefined) return { status: "GRACE", graceUntilMs };
  if (validUntilMs !== undefined && nowMs >= validUntilMs) return { status: "GRACE", graceUntilMs };
  return standing(license.status === "PAST_DUE" ? "PAST_DUE" : "ACTIVE");
}

function standing(status: LicenseStatus): Standing {
  return { status, graceUntilMs: undefined };
}

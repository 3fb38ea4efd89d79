import { invalidArgument } from "@licet/platform/errors";
import { checkAddOns, withAddOns } from "./effective-terms.ts";
import type { DecidedStatus, License } from "./license.ts";
import { checkEnd } from "./provision.ts";
import { toldAt } from "./schedule.ts";

/** What was decided about a license elsewhere, or before it was exported; see `LicenseRow` of the contract. */
export interface Past {
  readonly status: DecidedStatus;
  readonly statusReason: string;
  readonly suspendedByBilling: boolean;
  readonly unpaidGraceUntil?: Date;
  readonly cancelsAt?: Date;
  readonly cancelReason: string;
  readonly endedAt?: Date;
  readonly createdAt?: Date;
  readonly graceDays?: number;
  /** Whether its seats are unlimited whatever the plan says. */
  readonly unlimitedSeats: boolean;
}

/**
 * A license as provisioning makes it, put where it stood. What the clock did meanwhile counts as decided and told: who takes
 * a license over tells nobody anew of what happened before.
 *
 * @throws ServiceError INVALID_ARGUMENT that names the field where the past contradicts itself
 */
export function restore(provisioned: License, past: Past, now: Date): License {
  checkPast(past, now);
  const given = past.unlimitedSeats ? unlimited(provisioned) : provisioned;
  const graceDays = past.graceDays ?? provisioned.graceDays;
  checkEnd("grace_days", provisioned.validUntil, graceDays);
  const ended = past.status === "cancelled" || past.status === "revoked";
  const license: License = {
    ...given,
    graceDays,
    decidedStatus: past.status,
    statusReason: past.statusReason,
    suspendedByBilling: past.suspendedByBilling,
    ...(past.unpaidGraceUntil && { unpaidGraceUntil: past.unpaidGraceUntil }),
    ...(past.cancelsAt && { cancellation: { at: past.cancelsAt, reason: past.cancelReason } }),
    ...(ended && { endedAt: past.endedAt ?? now }),
    createdAt: past.createdAt ?? provisioned.createdAt,
  };
  const settled = overtaken(license, now);
  return { ...settled, told: toldAt(settled, now) };
}

function unlimited({ seats: _, ...license }: License): License {
  const { seats: __, ...base } = license.base;
  checkAddOns(base, license.addOns, "add_ons");
  return { ...license, ...withAddOns(base, license.addOns) };
}

function checkPast(past: Past, now: Date): void {
  const { status } = past;
  const ended = status === "cancelled" || status === "revoked";
  const refuse = (field: string, wrong: boolean, what: string): void => {
    if (wrong) throw invalidArgument(field, what);
  };
  refuse("status_reason", status === "active" && past.statusReason !== "", "must be empty: the license is active");
  refuse(
    "suspended_by_billing",
    past.suspendedByBilling && status !== "suspended",
    "must be false: it is not suspended",
  );
  refuse("unpaid_grace_until", past.unpaidGraceUntil !== undefined && status !== "past_due", "needs status past_due");
  refuse("cancels_at", past.cancelsAt !== undefined && ended, "must be absent: the license has ended");
  refuse("cancel_reason", past.cancelReason !== "" && !past.cancelsAt, "needs cancels_at");
  refuse("ended_at", past.endedAt !== undefined && !ended, "needs status cancelled or revoked");
  for (const [field, time] of [
    ["ended_at", past.endedAt],
    ["created_at", past.createdAt],
  ] as const) {
    refuse(field, time !== undefined && time > now, `must not lie in the future; it is now ${now.toISOString()}`);
  }
}

/** What the clock decided since: a cancellation whose time has come, and a grace of billing that is over. */
function overtaken(license: License, now: Date): License {
  const { cancellation, unpaidGraceUntil, ...rest } = license;
  if (cancellation && cancellation.at <= now) {
    const { at: endedAt, reason: statusReason } = cancellation;
    return { ...rest, decidedStatus: "cancelled", suspendedByBilling: false, statusReason, endedAt };
  }
  if (unpaidGraceUntil && unpaidGraceUntil <= now) {
    const suspended = { decidedStatus: "suspended", suspendedByBilling: true } as const;
    return { ...rest, ...suspended, ...(cancellation && { cancellation }) };
  }
  return license;
}

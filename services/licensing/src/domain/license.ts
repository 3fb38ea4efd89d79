import type { HeldAddOn } from "./add-on.ts";
import type { GivenTerms } from "./effective-terms.ts";
import type { Grant } from "./grant.ts";
import type { Cycle, LicenseType, Limit } from "./terms.ts";

/** Where a license stands; the meaning of each is in `docs/architecture.md` and `proto/licet/licensing/v1/license.proto`. */
export type LicenseStatus =
  | "pending"
  | "active"
  | "past_due"
  | "grace"
  | "suspended"
  | "expired"
  | "cancelled"
  | "revoked";

/** What was last decided about a license by somebody; pending, grace and expired are decided by the clock. */
export type DecidedStatus = Exclude<LicenseStatus, "pending" | "grace" | "expired">;

/** A customer's right to a plan version of a product, or to bare terms, for a time. */
export interface License {
  licenseId: string;
  customerId: string;
  product: string;
  /** Absent for a bare license. */
  plan?: { code: string; version: number };
  type: LicenseType;
  decidedStatus: DecidedStatus;
  /** Why it was suspended, cancelled or revoked, as told then; empty otherwise. */
  statusReason: string;
  /** Whether billing suspended it, so that a payment puts it in force again; what the vendor suspended it does not. */
  suspendedByBilling: boolean;
  /** While past due: when the grace that billing gave ends and the license is suspended. Absent: none was given. */
  unpaidGraceUntil?: Date;
  /** A cancellation that was asked for and takes effect later. */
  cancellation?: { at: Date; reason: string };
  /** What it gives without its add-ons: its plan version's features and limits or its own, and the seats sold. */
  base: GivenTerms;
  /** By code. */
  addOns: readonly HeldAddOn[];
  /** In effect, as all three: `withAddOns` makes them of the two above. `*` alone means all of the product. */
  features: readonly string[];
  limits: readonly Limit[];
  /** By feature; one that has expired stays until that is told. */
  grants: readonly Grant[];
  /** Absent: unlimited. */
  seats?: number;
  validFrom: Date;
  /** Excluded; absent: never ends. */
  validUntil?: Date;
  graceDays: number;
  /** Absent for a free license. */
  billingCycle?: Cycle;
  /** Whether billing is asked to renew it before it ends. */
  autoRenew: boolean;
  metadata: Readonly<Record<string, string>>;
  /** What else its plan version promises, by code. */
  attributes: Readonly<Record<string, string>>;
  createdAt: Date;
  updatedAt: Date;
  /** When it was revoked or cancelled. */
  endedAt?: Date;
  /** Raised by every change, not by what the clock alone does; its text is the etag. */
  revision: bigint;
  /** Absent in a row that a release before this field wrote. */
  told?: Told;
}

/** What the history has told of what the clock does to a license. */
export interface Told {
  status: LicenseStatus;
  /** The last notice before the present end: so many days; absent: none yet. */
  noticeDays?: number;
  /** Whether billing was asked to renew it at the present end. */
  renewal: boolean;
}

/** A day of grace, notice or term: 24 hours. */
export const DAY_MS = 86_400_000;

/**
 * When a license's grace ends (excluded), or undefined for a license without end. Grace days are spans of 24 hours
 * from `validUntil`.
 */
export function graceUntil(license: Pick<License, "validUntil" | "graceDays">): Date | undefined {
  return license.validUntil && new Date(license.validUntil.getTime() + license.graceDays * DAY_MS);
}

/** What a license's status follows from. */
export type StatusFacts = Pick<
  License,
  "decidedStatus" | "validFrom" | "validUntil" | "graceDays" | "unpaidGraceUntil" | "cancellation"
>;

/** A status and since when, in epoch milliseconds, a license has it if nobody decides anything else. */
export interface Phase {
  status: LicenseStatus;
  from: number;
}

/**
 * What the clock makes of a license, in order; the first phase has no beginning. What was decided stands, except that an
 * active or past-due license is pending before it begins, in grace after its end and expired after its grace; that an
 * unpaid one is suspended when the grace ends that billing gave; and that a cancellation takes effect at its time
 * (product.md, the status table). `statusAt` of validation is the same rule; `tests/mesh/status.test.ts` compares them.
 */
export function phasesOf(license: StatusFacts): Phase[] {
  const { decidedStatus: decided, cancellation } = license;
  if (decided === "cancelled" || decided === "revoked") return [{ status: decided, from: -Infinity }];
  const phases: Phase[] = decided === "suspended" ? [{ status: decided, from: -Infinity }] : inForce(license, decided);
  if (!cancellation) return phases;
  const at = cancellation.at.getTime();
  return [...phases.filter(({ from }) => from < at), { status: "cancelled", from: at }];
}

function inForce(license: StatusFacts, decided: "active" | "past_due"): Phase[] {
  const { validUntil, graceDays, unpaidGraceUntil } = license;
  const status = unpaidGraceUntil ? "grace" : decided;
  const phases: Phase[] = [
    { status: "pending", from: -Infinity },
    { status, from: license.validFrom.getTime() },
  ];
  const end = graceUntil(license)?.getTime() ?? Infinity;
  if (validUntil) {
    // Nothing goes from past due to expired without a grace, though it may be none that lasts.
    if (status === "past_due" || (status === "active" && graceDays > 0)) {
      phases.push({ status: "grace", from: validUntil.getTime() });
    }
    phases.push({ status: "expired", from: end });
  }
  const unpaidEnd = Math.max(unpaidGraceUntil?.getTime() ?? Infinity, license.validFrom.getTime());
  return unpaidEnd < end
    ? [...phases.filter(({ from }) => from < unpaidEnd), { status: "suspended", from: unpaidEnd }]
    : phases;
}

/** The status of a license at a time, see {@link phasesOf}. */
export function statusAt(license: StatusFacts, now: Date): LicenseStatus {
  // The first phase has no beginning, so there always is one.
  return (phasesOf(license).findLast(({ from }) => from <= now.getTime()) as Phase).status;
}

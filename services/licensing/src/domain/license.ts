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
  /** Why it was suspended or revoked, as told then; empty otherwise. */
  statusReason: string;
  /** Feature codes; `*` alone means all of the product. */
  features: readonly string[];
  limits: readonly Limit[];
  /** Absent: unlimited. */
  seats?: number;
  validFrom: Date;
  /** Excluded; absent: never ends. */
  validUntil?: Date;
  graceDays: number;
  /** Absent for a free license. */
  billingCycle?: Cycle;
  metadata: Readonly<Record<string, string>>;
  createdAt: Date;
  updatedAt: Date;
  /** When it was revoked or cancelled. */
  endedAt?: Date;
}

const DAY_MS = 86_400_000;

/**
 * When a license's grace ends (excluded), or undefined for a license without end. Grace days are spans of 24 hours
 * from `validUntil`.
 */
export function graceUntil(license: Pick<License, "validUntil" | "graceDays">): Date | undefined {
  return license.validUntil && new Date(license.validUntil.getTime() + license.graceDays * DAY_MS);
}

/**
 * The status of a license at a time: what was decided stands, except that an active or past-due license is pending
 * before it begins, in grace after its end and expired after its grace (product.md, the status table).
 */
export function statusAt(
  license: Pick<License, "decidedStatus" | "validFrom" | "validUntil" | "graceDays">,
  now: Date,
): LicenseStatus {
  const decided = license.decidedStatus;
  if (decided !== "active" && decided !== "past_due") return decided;
  if (now < license.validFrom) return "pending";
  if (!license.validUntil || now < license.validUntil) return decided;
  return now < (graceUntil(license) as Date) ? "grace" : "expired";
}

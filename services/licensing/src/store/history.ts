import { dontWait, keepPlanDontWait } from "@licet/platform/database/session";
import type { Transaction } from "kysely";
import type { DB } from "./schema.ts";

/** A change of a customer or license as it is kept for audit. */
export interface HistoryEntry {
  eventId: string;
  customerId: string;
  version: bigint;
  /** Absent when it happened to the customer. */
  licenseId?: string;
  /** The license key that it happened to, or that the license was put under. */
  keyId?: string;
  /** The feature that was activated or deactivated, or whose grant is over. */
  feature?: string;
  /** The number of `LicenseChangeCause`. */
  cause: number;
  actor: string;
  reason: string;
  /** Empty where no call from outside did it. */
  ipAddress: string;
  userAgent: string;
  /** `licet.licensing.v1.License` before and after. */
  before?: Uint8Array;
  after?: Uint8Array;
  /** 0 where it is no notice. */
  noticeDays: number;
  effectiveAt: Date;
}

/** An entry with what the database gave it. */
export interface StoredHistoryEntry extends HistoryEntry {
  /** Rises in the order of a customer's versions, and in the order of what happened to a license. */
  entryId: bigint;
  occurredAt: Date;
}

/** Whose history a list shows. */
export type HistoryHolder = { customerId: string } | { licenseId: string };

/** Appends entries, those of one customer in the order of their versions. The caller holds the row locks of the customers. */
export async function insertHistoryEntries(
  tx: Transaction<DB>,
  tenant: string,
  entries: readonly HistoryEntry[],
): Promise<void> {
  if (entries.length === 0) return;
  const rows = entries.map((entry) => ({
    tenant_id: tenant,
    event_id: entry.eventId,
    customer_id: entry.customerId,
    version: entry.version,
    license_id: entry.licenseId ?? null,
    key_id: entry.keyId ?? null,
    feature: entry.feature ?? null,
    cause: entry.cause,
    actor: entry.actor,
    reason: entry.reason,
    ip_address: entry.ipAddress,
    user_agent: entry.userAgent,
    before: entry.before ? Buffer.from(entry.before) : null,
    after: entry.after ? Buffer.from(entry.after) : null,
    notice_days: entry.noticeDays,
    effective_at: entry.effectiveAt,
  }));
  const hint = rows.length === 1 ? keepPlanDontWait : dontWait;
  await tx.insertInto("license_history").values(rows).modifyEnd(hint).execute();
}

/** Up to `limit` entries of a holder, oldest first, behind the entry `after`. */
export async function listHistory(
  tx: Transaction<DB>,
  tenant: string,
  holder: HistoryHolder,
  after: bigint,
  limit: number,
): Promise<StoredHistoryEntry[]> {
  const rows = await tx
    .selectFrom("license_history")
    .select([
      "entry_id",
      "event_id",
      "customer_id",
      "version",
      "license_id",
      "key_id",
      "feature",
      "cause",
      "actor",
      "reason",
      "ip_address",
      "user_agent",
      "before",
      "after",
      "notice_days",
      "effective_at",
      "occurred_at",
    ])
    .where("tenant_id", "=", tenant)
    .where((eb) =>
      "customerId" in holder
        ? eb("customer_id", "=", holder.customerId)
        : eb("license_id", "=", holder.licenseId.toLowerCase()),
    )
    .where("entry_id", ">", after)
    .orderBy("entry_id")
    .limit(limit)
    .execute();
  return rows.map((row) => ({
    entryId: row.entry_id,
    eventId: row.event_id,
    customerId: row.customer_id,
    version: row.version,
    ...(row.license_id !== null && { licenseId: row.license_id }),
    ...(row.key_id !== null && { keyId: row.key_id }),
    ...(row.feature !== null && { feature: row.feature }),
    cause: row.cause,
    actor: row.actor,
    reason: row.reason,
    ipAddress: row.ip_address,
    userAgent: row.user_agent,
    ...(row.before !== null && { before: row.before }),
    ...(row.after !== null && { after: row.after }),
    noticeDays: row.notice_days,
    effectiveAt: row.effective_at,
    occurredAt: row.occurred_at,
  }));
}

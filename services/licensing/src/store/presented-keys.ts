import { keepPlan } from "@licet/platform/database/session";
import type { Transaction } from "kysely";
import type { License } from "../domain/license.ts";
import type { KeyTimes } from "../domain/license-key.ts";
import type { SeatPolicy } from "../domain/seats.ts";
import { licenseColumns, onTerms } from "./licenses.ts";
import { type LicenseRow, licenseFromRow } from "./mapping.ts";
import type { DB } from "./schema.ts";
import { seatPolicyColumns, seatPolicyFromRow } from "./seats.ts";

/** A product as far as those who present keys are concerned. */
export interface PresentedProduct {
  readonly product: string;
  readonly offlineDays: number;
  readonly seatPolicy: SeatPolicy;
}

/** A key, and what it says to a product that asks. */
export interface PresentedKey {
  readonly key: KeyTimes;
  /** Absent: the key's brand sells no such product. */
  readonly product?: PresentedProduct;
  /** Absent: the key proves none of the product. */
  readonly license?: License;
  /** How many seats of the license are taken. */
  readonly seatsUsed: number;
}

/**
 * Reads all that an answer to a presented key depends on, in one statement: installed products ask more often than anybody
 * else. The key exists.
 *
 * @param code - of the product that asks
 */
export async function readPresentedKey(
  tx: Transaction<DB>,
  tenant: string,
  keyId: string,
  code: string,
): Promise<PresentedKey> {
  const row = await rowOf(tx, tenant, keyId, code);
  const key: KeyTimes = {
    ...(row.expires_at !== null && { expiresAt: row.expires_at }),
    ...(row.revoked_at !== null && { revokedAt: row.revoked_at }),
    ...(row.replaced_by !== null && { replacedBy: row.replaced_by }),
  };
  // Licenses leave behind what keys of theirs have ended: those say nothing of what another customer holds now.
  const proves = row.license_id !== null && row.customer_id === row.key_customer_id;
  return {
    key,
    ...(row.sold_product !== null && { product: productFromRow(row, row.sold_product) }),
    // Of the columns that the join made nullable, none is where there is a license.
    ...(proves && { license: licenseFromRow(row as LicenseRow) }),
    seatsUsed: row.seats_used ?? 0,
  };
}

type Row = Awaited<ReturnType<typeof rowOf>>;

function productFromRow(row: Row, product: string): PresentedProduct {
  // As above, of a product.
  const sold = row as { [Column in keyof Row]: NonNullable<Row[Column]> };
  const seatPolicy = seatPolicyFromRow({ ...sold, lease_seconds: row.lease_seconds });
  return { product, offlineDays: sold.offline_days, seatPolicy };
}

function rowOf(tx: Transaction<DB>, tenant: string, keyId: string, code: string) {
  return tx
    .selectFrom("license_key as key")
    .leftJoin("product as sold", (join) =>
      join.onRef("sold.tenant_id", "=", "key.tenant_id").on("sold.product", "=", code),
    )
    .leftJoin("keyed_license as held", (join) =>
      join
        .onRef("held.tenant_id", "=", "key.tenant_id")
        .onRef("held.key_id", "=", "key.key_id")
        .on("held.product", "=", code),
    )
    .leftJoin("license", (join) =>
      join.onRef("license.tenant_id", "=", "held.tenant_id").onRef("license.license_id", "=", "held.license_id"),
    )
    .leftJoin("plan_version", onTerms)
    .leftJoin("license_seats as taken", (join) =>
      join.onRef("taken.tenant_id", "=", "license.tenant_id").onRef("taken.license_id", "=", "license.license_id"),
    )
    .select(licenseColumns)
    .select(seatPolicyColumns)
    .select([
      "key.customer_id as key_customer_id",
      "key.expires_at",
      "key.revoked_at",
      "key.replaced_by",
      "sold.product as sold_product",
      "sold.offline_days",
      "taken.seats_used",
    ])
    .where("key.tenant_id", "=", tenant)
    .where("key.key_id", "=", keyId)
    .modifyEnd(keepPlan)
    .executeTakeFirstOrThrow();
}

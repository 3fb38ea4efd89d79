import type { Kysely, Transaction } from "kysely";
import { sql } from "kysely";
import type { KeyFormat, LicenseKey } from "../domain/license-key.ts";
import { failure } from "../errors.ts";
import type { DB } from "./schema.ts";

/** What of a key's secret is stored. */
export interface StoredSecret {
  /** For look-up, 32 bytes. */
  hash: Uint8Array;
  /** The master key that the hash belongs to. */
  hashKey: string;
  /** The whole key, as the vault sealed it. */
  sealed: Uint8Array;
}

/** Where a license key is sealed for. */
export function licenseKeyPlace(tenant: string, keyId: string): string {
  return `${tenant}|license_key|sealed|${keyId}`;
}

function keysWithLicenses(tx: Transaction<DB>, tenant: string) {
  return tx
    .selectFrom("license_key as key")
    .where("key.tenant_id", "=", tenant)
    .select([
      "key.key_id",
      "key.customer_id",
      "key.format",
      "key.prefix",
      "key.hint",
      "key.kid",
      "key.issued_at",
      "key.expires_at",
      "key.revoked_at",
      "key.revoke_reason",
      "key.replaced_by",
      sql<{ product: string; licenseId: string }[]>`(
        SELECT jsonb_agg(jsonb_build_object('product', held.product, 'licenseId', held.license_id))
        FROM keyed_license held WHERE held.tenant_id = key.tenant_id AND held.key_id = key.key_id)`.as("licenses"),
    ]);
}

type KeyRow = Awaited<ReturnType<ReturnType<typeof keysWithLicenses>["executeTakeFirstOrThrow"]>>;

function keyFromRow(row: KeyRow): LicenseKey {
  return {
    keyId: row.key_id,
    customerId: row.customer_id,
    format: row.format as KeyFormat,
    prefix: row.prefix,
    hint: row.hint,
    licenses: row.licenses,
    ...(row.kid !== null && { kid: row.kid }),
    issuedAt: row.issued_at,
    ...(row.expires_at !== null && { expiresAt: row.expires_at }),
    ...(row.revoked_at !== null && { revokedAt: row.revoked_at }),
    revokeReason: row.revoke_reason,
    ...(row.replaced_by !== null && { replacedBy: row.replaced_by }),
  };
}

/** Stores a new key and what it proves. The caller holds the customer row's lock. */
export async function insertLicenseKey(
  tx: Transaction<DB>,
  tenant: string,
  key: LicenseKey,
  secret: StoredSecret,
): Promise<void> {
  await tx
    .insertInto("license_key")
    .values({
      tenant_id: tenant,
      key_id: key.keyId,
      customer_id: key.customerId,
      format: key.format,
      prefix: key.prefix,
      hint: key.hint,
      key_hash: Buffer.from(secret.hash),
      hash_key: secret.hashKey,
      sealed: Buffer.from(secret.sealed),
      kid: key.kid ?? null,
      issued_at: key.issuedAt,
      expires_at: key.expiresAt ?? null,
    })
    .execute();
  await insertKeyedLicenses(tx, tenant, key.keyId, key.licenses);
}

/** Puts licenses under a key. */
export async function insertKeyedLicenses(
  tx: Transaction<DB>,
  tenant: string,
  keyId: string,
  licenses: LicenseKey["licenses"],
): Promise<void> {
  await tx
    .insertInto("keyed_license")
    .values(
      licenses.map(({ product, licenseId }) => ({ tenant_id: tenant, key_id: keyId, product, license_id: licenseId })),
    )
    .execute();
}

/** Stores what a rotation or revocation changes. The caller holds the customer row's lock. */
export async function updateLicenseKey(tx: Transaction<DB>, tenant: string, key: LicenseKey): Promise<void> {
  await tx
    .updateTable("license_key")
    .set({
      expires_at: key.expiresAt ?? null,
      revoked_at: key.revokedAt ?? null,
      revoke_reason: key.revokeReason,
      replaced_by: key.replacedBy ?? null,
    })
    .where("tenant_id", "=", tenant)
    .where("key_id", "=", key.keyId)
    .execute();
}

/**
 * A key.
 *
 * @throws ServiceError NOT_FOUND `KEY_NOT_FOUND`
 */
export async function getLicenseKey(tx: Transaction<DB>, tenant: string, keyId: string): Promise<LicenseKey> {
  const row = await keysWithLicenses(tx, tenant).where("key.key_id", "=", keyId).executeTakeFirst();
  if (!row) throw failure("KEY_NOT_FOUND", `There is no license key ${keyId}.`);
  return keyFromRow(row);
}

/** A key's secret as the vault sealed it; the key must exist. */
export async function getSealedKey(tx: Transaction<DB>, tenant: string, keyId: string): Promise<Uint8Array> {
  const { sealed } = await tx
    .selectFrom("license_key")
    .select("sealed")
    .where("tenant_id", "=", tenant)
    .where("key_id", "=", keyId)
    .executeTakeFirstOrThrow();
  return sealed;
}

/** How many keys a customer has, those that ended included. */
export async function countLicenseKeys(tx: Transaction<DB>, tenant: string, customerId: string): Promise<number> {
  const row = await tx
    .selectFrom("license_key")
    .select((eb) => eb.fn.countAll<bigint>().as("count"))
    .where("tenant_id", "=", tenant)
    .where("customer_id", "=", customerId)
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

/** The id of a key that proves a license and is active at `now`, as `keyStatusAt` has it; undefined: there is none. */
export async function findKeyInForce(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  now: Date,
): Promise<string | undefined> {
  const row = await tx
    .selectFrom("keyed_license as held")
    .innerJoin("license_key as key", (join) =>
      join.onRef("key.tenant_id", "=", "held.tenant_id").onRef("key.key_id", "=", "held.key_id"),
    )
    .select("key.key_id")
    .where("held.tenant_id", "=", tenant)
    .where("held.license_id", "=", licenseId)
    .where("key.revoked_at", "is", null)
    .where((eb) => eb.or([eb("key.expires_at", "is", null), eb("key.expires_at", ">", now)]))
    .orderBy("key.issued_at")
    .orderBy("key.key_id")
    .limit(1)
    .executeTakeFirst();
  return row?.key_id;
}

/** Whose keys a list shows. */
export type KeyHolder = { customerId: string } | { licenseId: string };

/** Up to `limit` keys of a holder, newest first, behind the key `after`. */
export async function listLicenseKeys(
  tx: Transaction<DB>,
  tenant: string,
  holder: KeyHolder,
  after: { issuedAt: Date; keyId: string } | undefined,
  limit: number,
): Promise<LicenseKey[]> {
  const rows = await keysWithLicenses(tx, tenant)
    .where((eb) =>
      "customerId" in holder
        ? eb("key.customer_id", "=", holder.customerId)
        : eb(
            "key.key_id",
            "in",
            eb
              .selectFrom("keyed_license")
              .select("keyed_license.key_id")
              .where("keyed_license.tenant_id", "=", tenant)
              .where("keyed_license.license_id", "=", holder.licenseId),
          ),
    )
    .$if(after !== undefined, (query) =>
      query.where(({ eb, refTuple, tuple }) =>
        eb(
          refTuple("key.issued_at", "key.key_id"),
          "<",
          tuple((after as { issuedAt: Date }).issuedAt, (after as { keyId: string }).keyId),
        ),
      ),
    )
    .orderBy("key.issued_at", "desc")
    .orderBy("key.key_id", "desc")
    .limit(limit)
    .execute();
  return rows.map(keyFromRow);
}

/** The key that one of these hashes belongs to, of whatever tenant. For the system role. */
export async function findLicenseKey(
  db: Kysely<DB>,
  hashes: readonly Uint8Array[],
): Promise<{ tenantId: string; keyId: string } | undefined> {
  const row = await db
    .selectFrom("license_key")
    .select(["tenant_id", "key_id"])
    .where(
      "key_hash",
      "in",
      hashes.map((hash) => Buffer.from(hash)),
    )
    .executeTakeFirst();
  return row && { tenantId: row.tenant_id, keyId: row.key_id };
}

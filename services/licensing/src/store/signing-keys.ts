import { PLATFORM_TENANT } from "@licet/platform/credentials";
import type { Transaction } from "kysely";
import { sql } from "kysely";
import type { SigningKey } from "../domain/signing-key.ts";
import type { DB } from "./schema.ts";

/** A signing key with its private half as the vault sealed it. */
export interface SealedSigningKey extends SigningKey {
  sealed: Uint8Array;
}

/** Where a private key is sealed for. */
export function signingKeyPlace(kid: string): string {
  return `${PLATFORM_TENANT}|signing_key|sealed|${kid}`;
}

/** All signing keys, newest first. The transaction's tenant is the platform, as in all functions here. */
export async function listSigningKeys(tx: Transaction<DB>): Promise<SealedSigningKey[]> {
  const rows = await tx
    .selectFrom("signing_key")
    .select(["kid", "public_key", "sealed", "version", "created_at", "active_from", "retired_at"])
    .where("tenant_id", "=", PLATFORM_TENANT)
    .orderBy("created_at", "desc")
    .orderBy("kid", "desc")
    .execute();
  return rows.map((row) => ({
    kid: row.kid,
    publicKey: row.public_key,
    sealed: row.sealed,
    version: row.version,
    createdAt: row.created_at,
    activeFrom: row.active_from,
    ...(row.retired_at !== null && { retiredAt: row.retired_at }),
  }));
}

/** Lets one transaction at a time change which signing keys there are; held to its end. */
export async function lockSigningKeys(tx: Transaction<DB>): Promise<void> {
  await sql`SELECT pg_advisory_xact_lock(hashtextextended('licet signing keys', 0))`.execute(tx);
}

/** Stores a signing key. */
export async function insertSigningKey(tx: Transaction<DB>, key: SealedSigningKey): Promise<void> {
  await tx
    .insertInto("signing_key")
    .values({
      tenant_id: PLATFORM_TENANT,
      kid: key.kid,
      public_key: Buffer.from(key.publicKey),
      sealed: Buffer.from(key.sealed),
      version: key.version,
      created_at: key.createdAt,
      active_from: key.activeFrom,
    })
    .execute();
}

/** Stores that a key was retired. */
export async function updateRetiredSigningKey(tx: Transaction<DB>, key: SigningKey): Promise<void> {
  await tx
    .updateTable("signing_key")
    .set({ retired_at: key.retiredAt ?? null, version: key.version })
    .where("tenant_id", "=", PLATFORM_TENANT)
    .where("kid", "=", key.kid)
    .execute();
}

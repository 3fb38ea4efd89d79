import type { Kysely, Transaction } from "kysely";
import type { Role } from "../domain/roles.ts";
import type { DB } from "./schema.ts";

/** A vendor or brand. */
export interface Tenant {
  tenantId: string;
  name: string;
  createdAt: Date;
}

/** An API key without its secret. */
export interface ApiKey {
  tenantId: string;
  keyId: string;
  name: string;
  role: Role;
  /** The scopes that were asked for; absent: all of the role's. */
  scopes?: readonly string[];
  /** SHA-256 of the secret, 32 bytes. */
  secretHash: Uint8Array;
  /** Raised with every change of the key. */
  version: bigint;
  createdAt: Date;
  expiresAt?: Date;
  revokedAt?: Date;
  /** The id of the key that replaces it. */
  replacedBy?: string;
  /** When a call was last let in by it, as far as it was reported; only in lists. */
  lastUsedAt?: Date;
}

const apiKeyColumns = [
  "tenant_id",
  "key_id",
  "name",
  "role",
  "secret_hash",
  "version",
  "created_at",
  "expires_at",
  "revoked_at",
  "scopes",
  "replaced_by",
] as const;

function apiKeyFromRow(row: {
  tenant_id: string;
  key_id: string;
  name: string;
  role: string;
  secret_hash: Buffer;
  version: bigint;
  created_at: Date;
  expires_at: Date | null;
  revoked_at: Date | null;
  scopes: string[] | null;
  replaced_by: string | null;
}): ApiKey {
  return {
    tenantId: row.tenant_id,
    keyId: row.key_id,
    name: row.name,
    role: row.role as Role,
    secretHash: row.secret_hash,
    version: row.version,
    createdAt: row.created_at,
    ...(row.expires_at !== null && { expiresAt: row.expires_at }),
    ...(row.revoked_at !== null && { revokedAt: row.revoked_at }),
    ...(row.scopes !== null && { scopes: row.scopes }),
    ...(row.replaced_by !== null && { replacedBy: row.replaced_by }),
  };
}

/** Stores a tenant. Returns false when one of this id exists. */
export async function insertTenant(tx: Transaction<DB>, tenant: Tenant): Promise<boolean> {
  const result = await tx
    .insertInto("tenant")
    .values({ tenant_id: tenant.tenantId, name: tenant.name, created_at: tenant.createdAt })
    .onConflict((conflict) => conflict.column("tenant_id").doNothing())
    .executeTakeFirst();
  return result.numInsertedOrUpdatedRows === 1n;
}

/** Up to `limit` tenants of the installation with an id after `after`, by id. For the system role. */
export async function listTenants(db: Kysely<DB>, after: string, limit: number): Promise<Tenant[]> {
  const rows = await db
    .selectFrom("tenant")
    .select(["tenant_id", "name", "created_at"])
    .where("tenant_id", ">", after)
    .orderBy("tenant_id")
    .limit(limit)
    .execute();
  return rows.map((row) => ({ tenantId: row.tenant_id, name: row.name, createdAt: row.created_at }));
}

/** Stores an API key. */
export async function insertApiKey(tx: Transaction<DB>, key: ApiKey): Promise<void> {
  await tx
    .insertInto("api_key")
    .values({
      tenant_id: key.tenantId,
      key_id: key.keyId,
      name: key.name,
      role: key.role,
      secret_hash: Buffer.from(key.secretHash),
      version: key.version,
      created_at: key.createdAt,
      expires_at: key.expiresAt ?? null,
      scopes: key.scopes ? [...key.scopes] : null,
    })
    .execute();
}

/** A key of any tenant by its id. For the system role. */
export async function findApiKey(db: Kysely<DB>, keyId: string): Promise<ApiKey | undefined> {
  const row = await db.selectFrom("api_key").select(apiKeyColumns).where("key_id", "=", keyId).executeTakeFirst();
  return row && apiKeyFromRow(row);
}

/** A tenant's key, locked for a change. */
export async function lockApiKey(tx: Transaction<DB>, tenant: string, keyId: string): Promise<ApiKey | undefined> {
  const row = await tx
    .selectFrom("api_key")
    .select(apiKeyColumns)
    .where("tenant_id", "=", tenant)
    .where("key_id", "=", keyId)
    .forUpdate()
    .executeTakeFirst();
  return row && apiKeyFromRow(row);
}

/** Stores what a revocation or rotation changes, in a new version. The caller holds the row's lock. */
export async function updateApiKey(tx: Transaction<DB>, key: ApiKey): Promise<void> {
  await tx
    .updateTable("api_key")
    .set({
      revoked_at: key.revokedAt ?? null,
      expires_at: key.expiresAt ?? null,
      replaced_by: key.replacedBy ?? null,
      version: key.version,
    })
    .where("tenant_id", "=", key.tenantId)
    .where("key_id", "=", key.keyId)
    .execute();
}

/** Up to `limit` keys of a tenant, newest first, behind the key `after`. */
export async function listApiKeys(
  tx: Transaction<DB>,
  tenant: string,
  after: { createdAt: Date; keyId: string } | undefined,
  limit: number,
): Promise<ApiKey[]> {
  const rows = await tx
    .selectFrom("api_key as key")
    .leftJoin("api_key_use as use", (join) =>
      join.onRef("use.tenant_id", "=", "key.tenant_id").onRef("use.key_id", "=", "key.key_id"),
    )
    .select(apiKeyColumns.map((column) => `key.${column}` as const))
    .select("use.last_used_at")
    .where("key.tenant_id", "=", tenant)
    .$if(after !== undefined, (query) =>
      query.where(({ eb, refTuple, tuple }) =>
        eb(
          refTuple("key.created_at", "key.key_id"),
          "<",
          tuple((after as { createdAt: Date }).createdAt, (after as { keyId: string }).keyId),
        ),
      ),
    )
    .orderBy("key.created_at", "desc")
    .orderBy("key.key_id", "desc")
    .limit(limit)
    .execute();
  return rows.map((row) => ({
    ...apiKeyFromRow(row),
    ...(row.last_used_at !== null && { lastUsedAt: row.last_used_at }),
  }));
}

/** Keys of any tenant by their ids. For the system role. */
export async function findApiKeys(db: Kysely<DB>, keyIds: readonly string[]): Promise<ApiKey[]> {
  const rows = await db.selectFrom("api_key").select(apiKeyColumns).where("key_id", "in", keyIds).execute();
  return rows.map(apiKeyFromRow);
}

/** When a key was used. */
export interface ApiKeyUse {
  readonly tenantId: string;
  readonly keyId: string;
  readonly usedAt: Date;
}

/**
 * Notes uses of keys that exist; an earlier one than is noted changes nothing. For the system role.
 *
 * @param uses - each key once, at least one
 */
export async function noteApiKeyUses(db: Kysely<DB>, uses: readonly ApiKeyUse[]): Promise<void> {
  // All who note take the rows in one order, so that none waits for another in a circle.
  const inOrder = [...uses].sort((a, b) => (a.keyId < b.keyId ? -1 : 1));
  await db
    .insertInto("api_key_use")
    .values(
      inOrder.map(({ tenantId, keyId, usedAt }) => ({ tenant_id: tenantId, key_id: keyId, last_used_at: usedAt })),
    )
    .onConflict((conflict) =>
      conflict
        .columns(["tenant_id", "key_id"])
        .doUpdateSet((eb) => ({ last_used_at: eb.ref("excluded.last_used_at") }))
        .whereRef("excluded.last_used_at", ">", "api_key_use.last_used_at"),
    )
    .execute();
}

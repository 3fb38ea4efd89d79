import { type Kysely, sql, type Transaction } from "kysely";
import type { DB } from "./schema.ts";

/** The calls of a license key on a day. */
export interface KeyDay {
  readonly tenantId: string;
  readonly keyId: string;
  /** In UTC, as `2026-11-25`. */
  readonly day: string;
}

/**
 * Takes calls of a day for this replica, under the row's lock.
 *
 * @param decide - how many, by how many have been taken
 * @returns how many it took, and how many are taken now
 */
export async function takeKeyCalls(
  tx: Transaction<DB>,
  { tenantId, keyId, day }: KeyDay,
  decide: (taken: number) => number,
): Promise<{ block: number; taken: number }> {
  const { taken } = await tx
    .insertInto("license_key_calls")
    .values({ tenant_id: tenantId, key_id: keyId, day, taken: 0 })
    // Changes nothing: it locks the row that is there, and reads what the last one to hold the lock left.
    .onConflict((conflict) =>
      conflict
        .columns(["tenant_id", "key_id", "day"])
        .doUpdateSet((eb) => ({ taken: eb.ref("license_key_calls.taken") })),
    )
    .returning("taken")
    .executeTakeFirstOrThrow();
  const block = decide(taken);
  if (block > 0) {
    await tx
      .updateTable("license_key_calls")
      .set({ taken: taken + block })
      .where("tenant_id", "=", tenantId)
      .where("key_id", "=", keyId)
      .where("day", "=", day)
      .execute();
  }
  return { block, taken: taken + block };
}

/** Gives back calls that were taken and not made, of whatever tenants; each key and day once. For the system role. */
export async function returnKeyCalls(
  db: Kysely<DB>,
  returned: readonly (KeyDay & { readonly count: number })[],
): Promise<void> {
  const column = <T>(of: (row: KeyDay & { readonly count: number }) => T) => returned.map(of);
  // All who give back take the rows in one order, so that none waits for another in a circle.
  await sql`
    WITH back AS (
      SELECT c.tenant_id, c.key_id, c.day, r.count
        FROM license_key_calls c
        JOIN unnest(${column((row) => row.tenantId)}::text[], ${column((row) => row.keyId)}::uuid[],
                    ${column((row) => row.day)}::date[], ${column((row) => row.count)}::integer[])
             AS r(tenant_id, key_id, day, count) USING (tenant_id, key_id, day)
       ORDER BY c.tenant_id, c.key_id, c.day FOR UPDATE OF c)
    UPDATE license_key_calls c SET taken = greatest(0, c.taken - back.count)
      FROM back WHERE (c.tenant_id, c.key_id, c.day) = (back.tenant_id, back.key_id, back.day)`.execute(db);
}

/** Deletes up to `limit` rows of days before `day`. For the system role. @returns how many were deleted */
export async function purgeKeyCalls(db: Kysely<DB>, day: string, limit: number): Promise<number> {
  const deleted = await sql`
    DELETE FROM license_key_calls WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM license_key_calls WHERE day < ${day}::date LIMIT ${limit}))`.execute(db);
  return Number(deleted.numAffectedRows ?? 0n);
}

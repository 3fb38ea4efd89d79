import { keepPlan } from "@licet/platform/database/session";
import type { ExpressionBuilder, Kysely, RawBuilder, Selectable, Transaction } from "kysely";
import { sql } from "kysely";
import type { Components, InstanceType } from "../domain/instance.ts";
import type { License } from "../domain/license.ts";
import { type Activation, MAX_SEATS, type SeatPolicy, type Seats } from "../domain/seats.ts";
import type { Identity } from "../fingerprints.ts";
import type { Activation as ActivationTable, DB, Product as ProductTable } from "./schema.ts";

/**
 * The time that leases go by, as SQL: the database's, which all replicas share. It is computed in the statement that needs
 * it, so behind any lock that was waited for before.
 */
export type LeaseClock = RawBuilder<Date>;

/** The seats of a license as their row has them, which is locked. */
export interface LockedSeats extends Seats {
  /** Of the last event of these seats. */
  readonly version: bigint;
}

/** The columns of a product that {@link seatPolicyFromRow} reads. */
export const seatPolicyColumns = [
  "seat_mode",
  "lease_seconds",
  "instance_types",
  "ignore_www",
  "ignore_path",
  "keep_hostname_case",
  "min_matching_components",
  "seats_below_use",
] as const;

/** How a product's seats are held. */
export function seatPolicyFromRow(row: Pick<Selectable<ProductTable>, (typeof seatPolicyColumns)[number]>): SeatPolicy {
  return {
    mode: row.seat_mode as SeatPolicy["mode"],
    ...(row.lease_seconds !== null && { leaseSeconds: row.lease_seconds }),
    rules: {
      types: row.instance_types as InstanceType[],
      ignoreWww: row.ignore_www,
      ignorePath: row.ignore_path,
      keepHostnameCase: row.keep_hostname_case,
      minMatchingComponents: row.min_matching_components,
    },
    belowUse: row.seats_below_use as SeatPolicy["belowUse"],
  };
}

/** The columns of a product that hold its policy. */
export function seatPolicyToRow({ mode, leaseSeconds, rules, belowUse }: SeatPolicy) {
  return {
    seat_mode: mode,
    lease_seconds: leaseSeconds ?? null,
    instance_types: [...rules.types],
    ignore_www: rules.ignoreWww,
    ignore_path: rules.ignorePath,
    keep_hostname_case: rules.keepHostnameCase,
    min_matching_components: rules.minMatchingComponents,
    seats_below_use: belowUse,
  };
}

const activationColumns = [
  "activation_id",
  "license_id",
  "instance_type",
  "instance_id",
  "display_name",
  "version",
  "deployment_id",
  "activated_at",
  "last_seen_at",
  "lease_until",
] as const;

/** The names of a machine's components, beside the columns of its activation. */
const componentNames = sql<string[]>`ARRAY(
  SELECT c.name FROM activation_component c WHERE c.tenant_id = activation.tenant_id
     AND c.license_id = activation.license_id AND c.activation_id = activation.activation_id ORDER BY c.name)`;

type ActivationRow = Pick<Selectable<ActivationTable>, (typeof activationColumns)[number]> & { components: string[] };

function activationFromRow(row: ActivationRow): Activation {
  return {
    activationId: row.activation_id,
    licenseId: row.license_id,
    type: row.instance_type as InstanceType,
    instanceId: row.instance_id,
    components: row.components,
    displayName: row.display_name,
    version: row.version,
    deploymentId: row.deployment_id,
    activatedAt: row.activated_at,
    lastSeenAt: row.last_seen_at,
    ...(row.lease_until !== null && { leaseUntil: row.lease_until }),
  };
}

/**
 * Locks the seats of a license until the end of the transaction. Whoever takes or frees one does this first; of a license
 * that is changed, its customer's and its own row are locked before. Undefined: no seat of it was ever asked for.
 */
export async function lockSeats(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
): Promise<LockedSeats | undefined> {
  const row = await seatsOf(tx, tenant, licenseId).forNoKeyUpdate().executeTakeFirst();
  return row && seatsFromRow(row);
}

/**
 * {@link lockSeats}, with a row where there was none. Where the license's seats have changed since it was read, whoever changed
 * them has made the row.
 */
export async function openSeats(
  tx: Transaction<DB>,
  tenant: string,
  { licenseId, seats }: Pick<License, "licenseId" | "seats">,
): Promise<LockedSeats> {
  const found = await lockSeats(tx, tenant, licenseId);
  if (found) return found;
  await tx
    .insertInto("license_seats")
    .values({ tenant_id: tenant, license_id: licenseId, seats_max: seats ?? null })
    .onConflict((conflict) => conflict.columns(["tenant_id", "license_id"]).doNothing())
    .execute();
  return seatsFromRow(await seatsOf(tx, tenant, licenseId).forNoKeyUpdate().executeTakeFirstOrThrow());
}

/** The seats of a license as they are, without a lock. */
export async function readSeats(
  tx: Transaction<DB>,
  tenant: string,
  { licenseId, seats }: { licenseId: string; seats?: number },
): Promise<Seats> {
  const row = await seatsOf(tx, tenant, licenseId).executeTakeFirst();
  return { used: row?.seats_used ?? 0, ...(seats !== undefined && { maximum: seats }) };
}

/** How many seats of each of these licenses are taken; 0 where the map has none. */
export async function countSeatsUsed(
  tx: Transaction<DB>,
  tenant: string,
  licenseIds: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  if (licenseIds.length === 0) return new Map();
  const rows = await tx
    .selectFrom("license_seats")
    .select(["license_id", "seats_used"])
    .where("tenant_id", "=", tenant)
    .where("license_id", "in", licenseIds)
    .execute();
  return new Map(rows.map((row) => [row.license_id, row.seats_used]));
}

function seatsOf(tx: Transaction<DB>, tenant: string, licenseId: string) {
  return tx
    .selectFrom("license_seats")
    .select(["seats_max", "seats_used", "version"])
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .modifyEnd(keepPlan);
}

type SeatsRow = { seats_max: number | null; seats_used: number; version: bigint };

function seatsFromRow({ seats_max, seats_used, version }: SeatsRow): LockedSeats {
  return { ...(seats_max !== null && { maximum: seats_max }), used: seats_used, version };
}

/** What an instance tells of itself when it takes a seat. */
export interface NewActivation {
  readonly activationId: string;
  readonly identity: Identity;
  readonly displayName: string;
  readonly version: string;
  readonly deploymentId: string;
  /** Absent: the seat has no lease. */
  readonly leaseSeconds?: number;
}

/**
 * Takes a seat of a license for an instance that holds none. The maximum is compared in the statement that raises the
 * count, so that no two callers take the last one, whatever they read before. The seats are locked, so nobody can give the
 * license to another customer meanwhile.
 *
 * @returns the seats after it, or undefined when all are taken, or the license is not that customer's any more
 */
export async function takeSeat(
  tx: Transaction<DB>,
  tenant: string,
  { licenseId, customerId }: Pick<License, "licenseId" | "customerId">,
  clock: LeaseClock,
  wanted: NewActivation,
): Promise<{ seats: LockedSeats; activation: Activation } | undefined> {
  const { identity, activationId } = wanted;
  const { rows } = await sql<SeatsRow & { at: Date; lease_until: Date | null }>`
    WITH taken AS (
      UPDATE license_seats SET seats_used = seats_used + 1, version = version + 1
       WHERE tenant_id = ${tenant} AND license_id = ${licenseId}
         AND seats_used < least(seats_max, ${MAX_SEATS}::integer)
         AND EXISTS (SELECT FROM license WHERE tenant_id = ${tenant} AND license_id = ${licenseId}
                        AND customer_id = ${customerId})
      RETURNING seats_max, seats_used, version),
    put AS (
      INSERT INTO activation (tenant_id, license_id, activation_id, fingerprint, instance_type, instance_id, display_name,
                              version, deployment_id, activated_at, last_seen_at, lease_until)
      SELECT ${tenant}, ${licenseId}::uuid, ${activationId}::uuid, ${identity.fingerprint}::bytea, ${identity.type},
             ${identity.id}, ${wanted.displayName}, ${wanted.version}, ${wanted.deploymentId}, at, at,
             at + make_interval(secs => ${wanted.leaseSeconds ?? null}::integer)
        FROM taken, (SELECT ${clock} AS at) AS clock
      RETURNING activated_at AS at, lease_until)
    SELECT seats_max, seats_used, version, at, lease_until FROM taken, put ${keepPlan}`.execute(tx);
  const [row] = rows;
  if (!row) return undefined;
  await insertComponents(tx, tenant, licenseId, activationId, identity.components);
  const activation: Activation = {
    activationId,
    licenseId,
    type: identity.type,
    instanceId: identity.id,
    components: [...identity.components.keys()],
    displayName: wanted.displayName,
    version: wanted.version,
    deploymentId: wanted.deploymentId,
    activatedAt: row.at,
    lastSeenAt: row.at,
    ...(row.lease_until !== null && { leaseUntil: row.lease_until }),
  };
  return { seats: seatsFromRow(row), activation };
}

async function insertComponents(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  activationId: string,
  components: Components,
): Promise<void> {
  if (components.size === 0) return;
  const rows = [...components].map(([name, hash]) => ({ name, value_hash: Buffer.from(hash, "hex") }));
  const place = { tenant_id: tenant, license_id: licenseId, activation_id: activationId };
  await tx
    .insertInto("activation_component")
    .values(rows.map((row) => ({ ...place, ...row })))
    .execute();
}

/** Which activation is meant: the one of a fingerprint, or of an id. */
export type Which = { readonly fingerprint: Buffer } | { readonly activationId: string };

function is(eb: ExpressionBuilder<DB, "activation">, which: Which) {
  return "fingerprint" in which
    ? eb("fingerprint", "=", which.fingerprint)
    : eb("activation_id", "=", which.activationId);
}

/** Which activation it is and whether its lease is over, or undefined. */
export async function findActivation(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  clock: LeaseClock,
  which: Which,
): Promise<{ activationId: string; lapsed: boolean } | undefined> {
  const row = await tx
    .selectFrom("activation")
    .select(["activation_id", sql<boolean>`coalesce(lease_until <= ${clock}, false)`.as("lapsed")])
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .where((eb) => is(eb, which))
    .modifyEnd(keepPlan)
    .executeTakeFirst();
  return row && { activationId: row.activation_id, lapsed: row.lapsed };
}

/** Whether an instance of exactly this fingerprint holds a seat of the license, be its lease over or not. */
export async function isKnown(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  fingerprint: Buffer,
): Promise<boolean> {
  const row = await tx
    .selectFrom("activation")
    .select("activation_id")
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .where("fingerprint", "=", fingerprint)
    .modifyEnd(keepPlan)
    .executeTakeFirst();
  return row !== undefined;
}

/** An activation whose lease is not over, or undefined. */
export async function findSeat(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  clock: LeaseClock,
  which: Which,
): Promise<Activation | undefined> {
  const row = await tx
    .selectFrom("activation")
    .select([...activationColumns, componentNames.as("components")])
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .where((eb) => is(eb, which))
    .where((eb) => eb.or([eb("lease_until", "is", null), eb("lease_until", ">", clock)]))
    .modifyEnd(keepPlan)
    .executeTakeFirst();
  return row && activationFromRow(row);
}

/** Machines looked at for the one that presents some components; those with the most in common. */
const MAX_CANDIDATES = 50;

/** Machines with a seat of the license that have a component in common with these, oldest first. */
export async function listSimilarMachines(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  components: Components,
): Promise<{ activationId: string; components: Components }[]> {
  const hashes = [...components.values()].map((hash) => Buffer.from(hash, "hex"));
  const rows = await tx
    .with("similar", (db) =>
      db
        .selectFrom("activation_component")
        .select("activation_id")
        .where("tenant_id", "=", tenant)
        .where("license_id", "=", licenseId)
        .where("value_hash", "in", hashes)
        .groupBy("activation_id")
        .orderBy((eb) => eb.fn.countAll(), "desc")
        .orderBy("activation_id")
        .limit(MAX_CANDIDATES),
    )
    .selectFrom("activation_component as component")
    .innerJoin("similar", "similar.activation_id", "component.activation_id")
    .select(["component.activation_id", "component.name", "component.value_hash"])
    .where("component.tenant_id", "=", tenant)
    .where("component.license_id", "=", licenseId)
    .orderBy("component.activation_id")
    .execute();
  return [...Map.groupBy(rows, (row) => row.activation_id)].map(([activationId, held]) => ({
    activationId,
    components: new Map(held.map((row) => [row.name, row.value_hash.toString("hex")])),
  }));
}

/** What an instance tells of itself when it is heard. What is empty stays as before. */
export interface Heard {
  readonly displayName: string;
  readonly version: string;
  readonly deploymentId: string;
  /** Absent: the seat has no lease. */
  readonly leaseSeconds?: number;
}

/** Notes that an instance was heard and begins its lease anew; undefined where it holds no seat, or its lease is over. */
export async function touchActivation(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  clock: LeaseClock,
  which: Which,
  heard: Heard,
): Promise<Activation | undefined> {
  const { displayName, version, deploymentId, leaseSeconds } = heard;
  const row = await tx
    .updateTable("activation")
    .set({
      last_seen_at: clock,
      lease_until: sql<Date | null>`${clock} + make_interval(secs => ${leaseSeconds ?? null}::integer)`,
      ...(displayName !== "" && { display_name: displayName }),
      ...(version !== "" && { version }),
      ...(deploymentId !== "" && { deployment_id: deploymentId }),
    })
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .where((eb) => is(eb, which))
    .where((eb) => eb.or([eb("lease_until", "is", null), eb("lease_until", ">", clock)]))
    .returning([...activationColumns, componentNames.as("components")])
    .modifyEnd(keepPlan)
    .executeTakeFirst();
  return row && activationFromRow(row);
}

/** Puts the components that a machine has now in place of those that it is known by, as parts are replaced. */
export async function replaceComponents(
  tx: Transaction<DB>,
  tenant: string,
  { licenseId, activationId }: Pick<Activation, "licenseId" | "activationId">,
  { fingerprint, id, components }: Identity,
): Promise<void> {
  await tx
    .updateTable("activation")
    .set({ fingerprint, instance_id: id })
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .where("activation_id", "=", activationId)
    .execute();
  await tx
    .deleteFrom("activation_component")
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .where("activation_id", "=", activationId)
    .execute();
  await insertComponents(tx, tenant, licenseId, activationId, components);
}

/** Which seats are freed: that of an activation, or up to so many whose leases are over. */
export type Freed = { readonly activationId: string } | { readonly lapsed: number };

/** Seats that were freed, and how it stands after that. */
export interface FreedSeats {
  readonly activations: readonly Activation[];
  readonly seats: LockedSeats;
  readonly at: Date;
}

/**
 * Frees seats of a license: removes the activations and takes so many off the count. The seats are locked.
 *
 * @returns undefined where there were none to free
 */
export async function freeSeats(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  clock: LeaseClock,
  freed: Freed,
): Promise<FreedSeats | undefined> {
  const rows = await tx
    .deleteFrom("activation")
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .$if("activationId" in freed, (query) =>
      query.where("activation_id", "=", (freed as { activationId: string }).activationId),
    )
    // The second comparison is made again when a heartbeat was waited for: then the lease is not over any more.
    .$if("lapsed" in freed, (query) =>
      query
        .where("activation_id", "in", (eb) =>
          eb
            .selectFrom("activation as lapsed")
            .select("lapsed.activation_id")
            .where("lapsed.tenant_id", "=", tenant)
            .where("lapsed.license_id", "=", licenseId)
            .where("lapsed.lease_until", "<=", clock)
            .orderBy("lapsed.lease_until")
            .orderBy("lapsed.activation_id")
            .limit((freed as { lapsed: number }).lapsed),
        )
        .where("lease_until", "<=", clock),
    )
    .returning([...activationColumns, componentNames.as("components"), clock.as("at")])
    .execute();
  const [first] = rows;
  if (!first) return undefined;
  const counted = await tx
    .updateTable("license_seats")
    .set((eb) => ({
      seats_used: eb("seats_used", "-", rows.length),
      version: eb("version", "+", BigInt(rows.length)),
    }))
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .returning(["seats_max", "seats_used", "version"])
    .executeTakeFirstOrThrow();
  return { activations: rows.map(activationFromRow), seats: seatsFromRow(counted), at: first.at };
}

/** Up to `limit` who hold seats of a license, the longest silent first. */
export async function listHolders(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  limit: number,
): Promise<Activation[]> {
  const rows = await tx
    .selectFrom("activation")
    .select([...activationColumns, componentNames.as("components")])
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .orderBy("last_seen_at")
    .orderBy("activation_id")
    .limit(limit)
    .execute();
  return rows.map(activationFromRow);
}

/** Up to `limit` activations of a license by id, behind `after`; only those last heard before a time, where one is given. */
export async function listActivations(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  { after, lastSeenBefore, limit }: { after: string | undefined; lastSeenBefore: Date | undefined; limit: number },
): Promise<Activation[]> {
  const rows = await tx
    .selectFrom("activation")
    .select([...activationColumns, componentNames.as("components")])
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", licenseId)
    .$if(after !== undefined, (query) => query.where("activation_id", ">", after as string))
    .$if(lastSeenBefore !== undefined, (query) => query.where("last_seen_at", "<", lastSeenBefore as Date))
    .orderBy("activation_id")
    .limit(limit)
    .execute();
  return rows.map(activationFromRow);
}

/** A license that has seats whose leases are over. */
export interface LapsedLicense {
  tenantId: string;
  licenseId: string;
}

/** Up to `limit` licenses of all tenants with leases that are over, found through the longest over. For the system role. */
export async function listLapsedLicenses(db: Kysely<DB>, clock: LeaseClock, limit: number): Promise<LapsedLicense[]> {
  const rows = await db
    .selectFrom((eb) =>
      eb
        .selectFrom("activation")
        .select(["tenant_id", "license_id"])
        .where("lease_until", "<=", clock)
        .orderBy("lease_until")
        .limit(limit)
        .as("lapsed"),
    )
    .select(["lapsed.tenant_id", "lapsed.license_id"])
    .distinct()
    .execute();
  return rows.map((row) => ({ tenantId: row.tenant_id, licenseId: row.license_id }));
}

import { platformError } from "@licet/platform/errors";
import type { Transaction } from "kysely";
import type { Context } from "./context.ts";
import { type InstanceRules, sameMachine } from "./domain/instance.ts";
import type { License } from "./domain/license.ts";
import { type Activation, hasRoom, type SeatPolicy, type Seats } from "./domain/seats.ts";
import { failure } from "./errors.ts";
import type { Identity } from "./fingerprints.ts";
import { recordSeatChanges } from "./history.ts";
import { getProduct } from "./store/catalog.ts";
import { getLicense } from "./store/licenses.ts";
import type { DB } from "./store/schema.ts";
import {
  type Freed,
  type FreedSeats,
  findActivation,
  freeSeats,
  type Heard,
  isKnown,
  listSimilarMachines,
  lockSeats,
  openSeats,
  replaceComponents,
  takeSeat,
  touchActivation,
  type Which,
} from "./store/seats.ts";

/** Leases that are ended in one transaction; an event each. */
const LAPSED_BATCH = 100;

/** Who takes or frees a seat: the id of a license key or of an API key, or a worker's name. */
export interface SeatActor {
  readonly actor: string;
  readonly reason: string;
}

const scheduler: SeatActor = { actor: "scheduler", reason: "" };

/**
 * Which activation of a license an instance is, if it has one: that of its fingerprint, or of a machine much like it. One
 * that is exactly it goes before others, also before those that have more components.
 */
export async function findInstance(
  tx: Transaction<DB>,
  tenant: string,
  licenseId: string,
  { fingerprint, components }: Identity,
  rules: InstanceRules,
): Promise<Which> {
  // All that is known of it must be equal: then its fingerprint is.
  if (components.size === 0 || rules.minMatchingComponents === 0) return { fingerprint };
  if (await isKnown(tx, tenant, licenseId, fingerprint)) return { fingerprint };
  const similar = await listSimilarMachines(tx, tenant, licenseId, components);
  const same = sameMachine(components, similar, rules);
  return same ? { activationId: same.activationId } : { fingerprint };
}

/** An instance that wants a seat. */
export interface Wanted {
  readonly identity: Identity;
  readonly heard: Omit<Heard, "leaseSeconds">;
  readonly actor: SeatActor;
}

/** What became of it: the seat, if there was one for it, and how it stands after that. */
export interface Activated {
  readonly activation?: Activation;
  readonly seats: Seats;
}

/**
 * Takes a seat of a license for an instance, or finds the one that it holds. The seats are locked first: who is the same
 * instance is then decided by one caller after the other. Leases that are over are ended where their seats are needed.
 *
 * @throws ServiceError ABORTED `CONFLICT_RETRY` when the license has just been transferred
 */
export async function activate(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  license: License,
  policy: SeatPolicy,
  { identity, heard, actor }: Wanted,
): Promise<Activated> {
  const { licenseId, customerId } = license;
  const clock = ctx.leaseClock();
  const lease = policy.leaseSeconds === undefined ? {} : { leaseSeconds: policy.leaseSeconds };
  let seats: Seats = await openSeats(tx, tenant, license);
  const which = await findInstance(tx, tenant, licenseId, identity, policy.rules);
  const held = (await findActivation(tx, tenant, licenseId, clock, which))?.activationId;
  if (held !== undefined) {
    if ("activationId" in which) await replaceComponents(tx, tenant, { licenseId, activationId: held }, identity);
    const activation = await touchActivation(
      tx,
      tenant,
      licenseId,
      clock,
      { activationId: held },
      { ...heard, ...lease },
    );
    if (activation) return { activation, seats };
    // Its lease is over: what it held is free, be it for itself.
    seats = (await free(ctx, tx, tenant, license, "lease_expired", { activationId: held }, scheduler))?.seats ?? seats;
  }
  if (!hasRoom(seats)) seats = (await endLeases(ctx, tx, tenant, license)) ?? seats;
  const wanted = { activationId: ctx.newId(), identity, ...heard, ...lease };
  const taken = await takeSeat(tx, tenant, license, clock, wanted);
  if (!taken) {
    if (!hasRoom(seats)) return { seats };
    throw platformError("CONFLICT_RETRY", `License ${licenseId} has just been transferred; send it again.`);
  }
  const change = { licenseId, customerId, cause: "activated", ...actor } as const;
  const at = taken.activation.activatedAt;
  await recordSeatChanges(ctx, tx, tenant, change, { activations: [taken.activation], seats: taken.seats, at });
  return taken;
}

/**
 * Frees the seat of an instance, where it holds one.
 *
 * @returns the activation as it last was; absent: it held none
 */
export async function deactivate(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  license: License,
  policy: SeatPolicy,
  { identity, actor }: Pick<Wanted, "identity" | "actor">,
): Promise<Activated> {
  const { licenseId } = license;
  const seats = await openSeats(tx, tenant, license);
  const which = await findInstance(tx, tenant, licenseId, identity, policy.rules);
  const found = await findActivation(tx, tenant, licenseId, ctx.leaseClock(), which);
  if (!found) return { seats };
  const cause = found.lapsed ? "lease_expired" : "deactivated";
  const by = found.lapsed ? scheduler : actor;
  const freed = await free(ctx, tx, tenant, license, cause, { activationId: found.activationId }, by);
  if (!freed) throw new Error(`activation ${found.activationId} vanished while its seats were locked`);
  const [activation] = freed.activations;
  return { ...(activation && !found.lapsed && { activation }), seats: freed.seats };
}

/**
 * Frees a seat by the vendor's will.
 *
 * @returns undefined where no such activation holds a seat of the license
 */
export async function release(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  license: License,
  activationId: string,
  actor: SeatActor,
): Promise<Activated | undefined> {
  await openSeats(tx, tenant, license);
  const freed = await free(ctx, tx, tenant, license, "released", { activationId }, actor);
  const [activation] = freed?.activations ?? [];
  return freed && activation && { activation, seats: freed.seats };
}

/** Ends leases of a license that are over, a batch at most; its seats are locked. Undefined: none was. */
async function endLeases(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  license: License,
): Promise<Seats | undefined> {
  return (await free(ctx, tx, tenant, license, "lease_expired", { lapsed: LAPSED_BATCH }, scheduler))?.seats;
}

async function free(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  { licenseId, customerId }: License,
  cause: "deactivated" | "released" | "lease_expired",
  which: Freed,
  actor: SeatActor,
): Promise<FreedSeats | undefined> {
  const freed = await freeSeats(tx, tenant, licenseId, ctx.leaseClock(), which);
  if (freed) await recordSeatChanges(ctx, tx, tenant, { licenseId, customerId, cause, ...actor }, freed);
  return freed;
}

/** Ends leases of a license that are over, a batch at most, in a transaction of its tenant: what the scheduler does. */
export async function settleSeats(ctx: Context, tx: Transaction<DB>, tenant: string, licenseId: string): Promise<void> {
  await lockSeats(tx, tenant, licenseId);
  // Behind the lock: while it is held nobody gives the license to another customer.
  await endLeases(ctx, tx, tenant, await getLicense(tx, tenant, licenseId));
}

/**
 * Refuses a license fewer seats than are taken, where its product wants that refused. Call it when the license is written:
 * its seats are locked from then on.
 *
 * @throws ServiceError FAILED_PRECONDITION `SEATS_IN_USE`
 */
export async function checkSeatsFit(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  before: License,
  after: License,
): Promise<void> {
  const { licenseId, seats: maximum = Infinity } = after;
  if (maximum >= (before.seats ?? Infinity)) return;
  const { used } = await seatsInUse(ctx, tx, tenant, after, maximum);
  if (used <= maximum || (await getProduct(tx, tenant, after.product)).seatPolicy.belowUse === "block") return;
  const message = `License ${licenseId} can't have ${maximum} seats while ${used} are taken; free some with ReleaseActivation.`;
  throw failure("SEATS_IN_USE", message, { used: `${used}`, maximum: `${maximum}` });
}

/**
 * Refuses to give a license away whose seats are taken: they are those of its holder's instances. Its seats are locked from
 * then on.
 *
 * @throws ServiceError FAILED_PRECONDITION `SEATS_IN_USE`
 */
export async function checkNoSeatTaken(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  license: License,
): Promise<void> {
  const { used } = await seatsInUse(ctx, tx, tenant, license, 0);
  if (used === 0) return;
  const message = `Instances of its holder have ${used} seats of license ${license.licenseId}; free them with ReleaseActivation, then transfer it.`;
  throw failure("SEATS_IN_USE", message, { used: `${used}`, maximum: "0" });
}

/** Batches of leases that are ended before a change is refused for them: an event each, so not without end. */
const MAX_BATCHES = 10;

/** The seats of a license, locked; with leases that are over ended as far as more than `maximum` are taken. */
async function seatsInUse(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  license: License,
  maximum: number,
): Promise<Seats> {
  // With a row also where no seat was ever asked for: who asks for the first one now waits for what is done here.
  let seats: Seats = await openSeats(tx, tenant, license);
  for (let batch = 0; batch < MAX_BATCHES && seats.used > maximum; batch++) {
    const after = await endLeases(ctx, tx, tenant, license);
    if (!after) break;
    seats = after;
  }
  return seats;
}

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ConsistencyTokenSchema } from "@licet/contracts/licet/licensing/v1/customer_pb";
import type { LicenseSchema } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { platformError } from "@licet/platform/errors";
import type { Call } from "@licet/platform/rpc/call";
import type { Transaction } from "kysely";
import type { Context } from "./context.ts";
import { checkEtag } from "./domain/etag.ts";
import type { License } from "./domain/license.ts";
import { adopted, nextDueAt, nextStep } from "./domain/schedule.ts";
import { failure } from "./errors.ts";
import { recordLicenseChange, type Worker } from "./history.ts";
import { licenseToProto, licenseWithStatus } from "./rpc/convert.ts";
import { checkSeatsFit } from "./seats.ts";
import { lockCustomer, raiseEntitlementVersion } from "./store/customers.ts";
import { countLicenses, getLicense, updateLicense } from "./store/licenses.ts";
import type { DB } from "./store/schema.ts";

/** A customer's snapshot holds all its licenses and travels as one event. */
const MAX_LICENSES = 500;

/**
 * Things that the clock can do to a license without anybody deciding anything, beside the end of each grant; more mean
 * that they lead in a circle.
 */
const MAX_STEPS = 10;

/** A change that somebody asked for. */
export interface Asked {
  readonly licenseId: string;
  /** The etag that the license must have; empty: any. */
  readonly etag: string;
  /** Why, as told by the actor; may be empty. */
  readonly reason: string;
}

/** What every change of a license answers. */
export interface Changed {
  license: MessageInitShape<typeof LicenseSchema>;
  consistencyToken: MessageInitShape<typeof ConsistencyTokenSchema>;
}

/** What a change makes of a license, and what that is called. */
export interface Outcome {
  cause: Exclude<LicenseChangeCause, LicenseChangeCause.UNSPECIFIED>;
  license: License;
  /** The feature that it is about. */
  feature?: string;
}

/** Decides what becomes of a license that is settled up to `now`. */
export type Decide = (license: License, now: Date) => Outcome | Promise<Outcome>;

/**
 * Changes a license as somebody asked: under the row lock of its customer, behind everything that the clock did before,
 * with one version and one event. What all changes of a license but its transfer have in common.
 *
 * @param decide - what becomes of the license; it may read more in the transaction
 * @throws ServiceError NOT_FOUND `LICENSE_NOT_FOUND`; ABORTED `ETAG_MISMATCH`; FAILED_PRECONDITION `SEATS_IN_USE`; what
 * `decide` throws
 */
export async function changeLicense(
  ctx: Context,
  tx: Transaction<DB>,
  by: Call | Worker,
  asked: Asked,
  decide: Decide,
): Promise<Changed> {
  const { tenant } = by;
  const { customerId } = await getLicense(tx, tenant, asked.licenseId);
  await lockCustomer(tx, tenant, customerId);
  const now = ctx.now();
  const license = await openLicense(ctx, tx, tenant, { customerId, asked, now });
  const { license: changed, ...outcome } = await decide(license, now);
  const version = await raiseEntitlementVersion(tx, tenant, customerId);
  await updateLicense(tx, tenant, changed, nextDueAt(changed, now));
  await checkSeatsFit(ctx, tx, tenant, license, changed);
  const after = licenseToProto(changed, now);
  const before = licenseToProto(license, now);
  const { licenseId } = license;
  const { reason } = asked;
  const change = { customerId, version, ...outcome, licenseId, reason, effectiveAt: now, before, after };
  await recordLicenseChange(ctx, tx, by, change);
  return { license: after, consistencyToken: { customerId, version } };
}

/**
 * Reads a license whose customer's row is locked, checks that it is still that customer's and has the wanted etag, and
 * tells what the clock did to it.
 *
 * @throws ServiceError ABORTED `ETAG_MISMATCH`, or `CONFLICT_RETRY` when it has just been transferred
 */
export async function openLicense(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  { customerId, asked, now }: { customerId: string; asked: Asked; now: Date },
): Promise<License> {
  const license = await getLicense(tx, tenant, asked.licenseId);
  if (license.customerId !== customerId) {
    throw platformError("CONFLICT_RETRY", `License ${license.licenseId} has just been transferred; send it again.`);
  }
  checkEtag(`License ${license.licenseId}`, asked.etag, license.revision);
  return settle(ctx, tx, tenant, license, now);
}

/**
 * Tells everything that the clock did to a license up to `now` and that nobody was told: an event each, in its order.
 * The customer's row is locked; so of all who settle a license, one tells a thing.
 */
async function settle(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  license: License,
  now: Date,
): Promise<License> {
  let current: License = adopted(license, now);
  const maxSteps = MAX_STEPS + license.grants.length;
  for (let steps = 0; ; steps++) {
    const step = nextStep(current, now);
    if (!step) break;
    if (steps === maxSteps) throw new Error(`the clock has more than ${maxSteps} things to do to one license`);
    const { happening, license: next } = step;
    const { customerId, licenseId } = license;
    const version = await raiseEntitlementVersion(tx, tenant, customerId);
    await updateLicense(tx, tenant, next, nextDueAt(next, now));
    const { reason, at: effectiveAt, noticeDays = 0, feature } = happening;
    const before = licenseWithStatus(current, happening.from);
    const after = licenseWithStatus(next, happening.to);
    const cause: Outcome["cause"] = LicenseChangeCause[happening.cause];
    const what = { cause, licenseId, reason, effectiveAt, noticeDays, ...(feature !== undefined && { feature }) };
    const change = { customerId, version, ...what, before, after };
    await recordLicenseChange(ctx, tx, { tenant, actor: "scheduler" }, change);
    current = next;
  }
  return current;
}

/**
 * Settles a license in a transaction of its tenant, without a call: what the scheduler does. Where there is nothing to
 * tell, it notes when there will be.
 */
export async function settleDue(ctx: Context, tx: Transaction<DB>, tenant: string, licenseId: string): Promise<void> {
  const { customerId } = await getLicense(tx, tenant, licenseId);
  await lockCustomer(tx, tenant, customerId);
  const license = await getLicense(tx, tenant, licenseId);
  // Transferred meanwhile: it is still due, and the next round finds it with its new holder.
  if (license.customerId !== customerId) return;
  // Behind the lock: it may have been waited for.
  const now = await ctx.databaseNow(tx);
  const settled = await settle(ctx, tx, tenant, license, now);
  await updateLicense(tx, tenant, settled, nextDueAt(settled, now));
}

/**
 * Refuses a license more than a customer can hold; its row is locked.
 *
 * @throws ServiceError FAILED_PRECONDITION `TOO_MANY_LICENSES`
 */
export async function checkRoom(tx: Transaction<DB>, tenant: string, customerId: string): Promise<void> {
  refuseMore(customerId, await countLicenses(tx, tenant, customerId));
}

/**
 * Refuses a license more than a customer can hold who has so many.
 *
 * @throws ServiceError FAILED_PRECONDITION `TOO_MANY_LICENSES`
 */
export function refuseMore(customerId: string, held: number): void {
  if (held < MAX_LICENSES) return;
  const message = `Customer ${customerId} holds ${MAX_LICENSES} licenses, the most possible.`;
  throw failure("TOO_MANY_LICENSES", message, { maximum: `${MAX_LICENSES}` });
}

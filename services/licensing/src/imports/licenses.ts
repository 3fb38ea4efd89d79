import { create } from "@bufbuild/protobuf";
import type { AddOnRow } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { ProvisionLicenseRequestSchema } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { Call } from "@licet/platform/rpc/call";
import { offerFor } from "../domain/add-on.ts";
import { checkConfiguration, type Grant, keptUnder, withGrant } from "../domain/grant.ts";
import type { DecidedStatus, License } from "../domain/license.ts";
import { type Past, restore } from "../domain/restore.ts";
import { nextDueAt } from "../domain/schedule.ts";
import { failure } from "../errors.ts";
import { appendChanges, type RecordedChange, toRecorded } from "../history.ts";
import { refuseMore } from "../lifecycle.ts";
import { type Offers, offersOf } from "../offers.ts";
import { dateFromProto, licenseToProto } from "../rpc/convert.ts";
import { newLicense } from "../rpc/provision-license.ts";
import { customerNotFound, lockCustomers, setEntitlementVersions } from "../store/customers.ts";
import type { RowOutcome } from "../store/imports.ts";
import { findLicenses, insertLicenses } from "../store/licenses.ts";
import { inSavepoint } from "../store/savepoint.ts";
import { findSnapshots, type Snapshot } from "../store/snapshots.ts";
import { updateKnown } from "./known-license.ts";
import { attempt, type NumberedRow, overtaken, type RowResult, type Work } from "./rows.ts";

type LicenseRow = NumberedRow<"licenses">;

/** Bytes of events that are in memory at once, one event more at most: each carries everything that its customer holds. */
const MAX_WRITTEN_BYTES = 4 * 1024 * 1024;

/** Applies rows of licenses, each id once, as ProvisionLicense does one; what is there already is changed first. */
export async function applyLicenses(work: Work, rows: readonly LicenseRow[]): Promise<RowResult[]> {
  const { tx, call, settings } = work;
  // Before it is looked for what is there: who imports the same rows at the same time has stored them then, or waits.
  await lockCustomers(tx, call.tenant, [...new Set(rows.map(({ message }) => message.customerId))]);
  const ids = rows.map(({ message }) => message.licenseId.toLowerCase()).filter((id) => id !== "");
  const found = await findLicenses(tx, call.tenant, ids);
  const known = new Map(found.map((license) => [license.licenseId, license]));
  const isKnown = ({ message }: LicenseRow) => known.get(message.licenseId.toLowerCase());
  const results: RowResult[] = [];
  for (const row of rows) {
    const license = isKnown(row);
    if (!license) continue;
    const result = await attempt(row.line, async (): Promise<RowOutcome> => {
      if (settings.onExisting === "fail") {
        throw failure("LICENSE_EXISTS", `A license ${license.licenseId} exists already.`);
      }
      if (settings.onExisting === "skip") return "skipped";
      return inSavepoint(tx, () => updateKnown(work, license, row));
    });
    results.push(result);
  }
  const fresh = rows.filter((row) => !isKnown(row));
  return [...results, ...(await provisionAll(work, fresh))];
}

/** A license to be stored, and how that is told. */
interface Provisioned {
  readonly license: License;
  readonly dueAt: Date | undefined;
  readonly change: RecordedChange;
}

/** Provisions licenses, whose customers are locked: what each customer holds is read once, and grows in memory from row to row. */
async function provisionAll(work: Work, rows: readonly LicenseRow[]): Promise<RowResult[]> {
  if (rows.length === 0) return [];
  const { tx, call } = work;
  const customerIds = [...new Set(rows.map(({ message }) => message.customerId))];
  const snapshots = await findSnapshots(tx, call.tenant, customerIds);
  const held = new Map(snapshots.map((snapshot) => [snapshot.customerId, snapshot]));
  const offers = offersOf(tx, call.tenant);
  const results: RowResult[] = [];
  let provisioned: Provisioned[] = [];
  for (const row of rows) {
    const result = await attempt(row.line, async (): Promise<RowOutcome> => {
      provisioned.push(await provision(work, held, offers, row));
      return "created";
    });
    results.push(result);
    if (bytesOf(provisioned) < MAX_WRITTEN_BYTES) continue;
    await store(work, held, provisioned);
    provisioned = [];
  }
  await store(work, held, provisioned);
  return results;
}

function bytesOf(provisioned: readonly Provisioned[]): number {
  return provisioned.reduce((sum, { change }) => sum + change.event.payload.length, 0);
}

/** Stores licenses that were provisioned, in their order, and their customers' versions. */
async function store(
  { tx, call: { tenant } }: Work,
  held: ReadonlyMap<string, Snapshot>,
  provisioned: readonly Provisioned[],
): Promise<void> {
  if ((await insertLicenses(tx, tenant, provisioned)) < provisioned.length) throw overtaken();
  const raised = new Set(provisioned.map(({ license }) => license.customerId));
  const versions = [...held.values()].filter(({ customerId }) => raised.has(customerId));
  await setEntitlementVersions(tx, tenant, new Map(versions.map((of) => [of.customerId, of.version])));
  const changes = provisioned.map(({ change }) => change);
  await appendChanges(tx, tenant, changes);
}

async function provision(
  { ctx, call, now }: Work,
  held: Map<string, Snapshot>,
  offers: Offers,
  { message: row }: LicenseRow,
): Promise<Provisioned> {
  const { customerId } = row;
  const before = held.get(customerId);
  if (!before) throw customerNotFound(customerId);
  refuseMore(customerId, before.licenses.length);
  const restored = restore(
    await newLicense(ctx, offers, toRequest(row, await ordersOf(offers, row))),
    pastOf(row),
    now,
  );
  const license = { ...restored, grants: await grantsOf(offers, restored, row, call, now) };
  const { licenseId } = license;
  const snapshot = { ...before, version: before.version + 1n, licenses: withLicense(before.licenses, license) };
  const after = licenseToProto(license, now);
  const { version } = snapshot;
  const cause = LicenseChangeCause.PROVISIONED;
  const change = toRecorded(ctx, call, { customerId, version, cause, licenseId, effectiveAt: now, after }, snapshot);
  held.set(customerId, snapshot);
  return { license, dueAt: nextDueAt(license, now), change };
}

/** The grants of a row that are not over, held against what the license may be granted. */
async function grantsOf(
  offers: Offers,
  { licenseId, product, plan, features }: License,
  row: LicenseRow["message"],
  call: Call,
  now: Date,
): Promise<readonly Grant[]> {
  if (row.grants.length === 0) return [];
  const terms = plan && { features, grantable: (await offers.plan(product, plan.code, plan.version)).terms.grantable };
  let grants: readonly Grant[] = [];
  for (const { feature, configuration, onBehalfOf, ...given } of row.grants) {
    const expiresAt = dateFromProto("grants.expires_at", given.expiresAt);
    const activatedAt = dateFromProto("grants.activated_at", given.activatedAt) ?? now;
    if (activatedAt > now) throw invalidArgument("grants.activated_at", "must not lie in the future");
    if (expiresAt && expiresAt <= now) continue;
    checkConfiguration(configuration);
    const activatedBy = given.activatedBy || call.credential.id;
    const wanted = { feature, configuration, activatedBy, onBehalfOf, ...(expiresAt && { expiresAt }) };
    grants = withGrant(licenseId, grants, wanted, now).map((grant) =>
      grant.feature === feature ? { ...grant, activatedAt } : grant,
    );
  }
  await offers.checkFeatures(
    product,
    grants.map(({ feature }) => feature),
  );
  const [refused] = terms ? grants.filter((grant) => !keptUnder([grant], terms).includes(grant)) : [];
  if (refused) {
    const message = `The plan does not let feature ${refused.feature} be granted.`;
    throw failure("GRANT_NOT_ALLOWED", message, { field: "grants", feature: refused.feature });
  }
  return grants;
}

/** In the order in which snapshots are read: oldest first. */
function withLicense(licenses: readonly License[], added: License): License[] {
  const isBefore = ({ createdAt, licenseId }: License) =>
    createdAt < added.createdAt || (+createdAt === +added.createdAt && licenseId < added.licenseId);
  const place = licenses.findLastIndex(isBefore) + 1;
  return licenses.toSpliced(place, 0, added);
}

/**
 * The add-ons of a row as orders: with a price only where the version leaves that to an agreement.
 *
 * @throws ServiceError INVALID_ARGUMENT where the row has another price than the version
 */
async function ordersOf(offers: Offers, row: LicenseRow["message"]): Promise<AddOnRow[]> {
  if (row.addOns.length === 0) return [];
  if (row.plan === "") throw invalidArgument("add_ons", "must be empty when no plan is given");
  const known = await offers.addOns(row.product, row.addOns);
  return row.addOns.map(({ price, ...order }) => {
    const terms = known.get(order.addOn)?.terms;
    const pricing = terms && offerFor(terms, row.plan)?.pricing;
    if (!price || pricing?.kind === "agreed") return { ...order, ...(price && { price }) };
    const same =
      pricing?.kind === "price" &&
      pricing.price.amountMinor === price.amountMinor &&
      pricing.price.currency === price.currency;
    if (pricing && !same) {
      throw invalidArgument("add_ons.price", `must be absent, or that of ${order.addOn} with plan ${row.plan}`);
    }
    return order;
  });
}

function toRequest(row: LicenseRow["message"], addOns: AddOnRow[]) {
  const { seats } = row;
  const bare = row.plan === "";
  if (bare && seats === undefined) throw invalidArgument("seats", "is required when no plan is given; -1: unlimited");
  if (!bare && (row.features.length > 0 || row.limits.length > 0)) {
    const field = row.features.length > 0 ? "features" : "limits";
    throw invalidArgument(field, "must be empty when a plan is given: they are the plan's");
  }
  if (bare && row.planVersion !== 0) throw invalidArgument("plan_version", "must be 0 when no plan is given");
  return create(ProvisionLicenseRequestSchema, {
    customerId: row.customerId,
    product: row.product,
    plan: row.plan,
    planVersion: row.planVersion,
    ...(row.validFrom && { validFrom: row.validFrom }),
    ...(row.validUntil && { validUntil: row.validUntil }),
    ...(seats !== undefined && seats >= 0n && { seats: Number(seats) }),
    features: row.features,
    limits: row.limits,
    billingCycle: row.billingCycle,
    metadata: row.metadata,
    licenseId: row.licenseId,
    autoRenew: row.autoRenew,
    addOns: addOns.map(({ addOn, version, quantity, price }) => ({
      addOn,
      version,
      quantity,
      ...(price && { price }),
    })),
  });
}

/** What was decided, by the status that a row names; the clock's are taken for active. */
const decidedStatus: Readonly<Record<LicenseStatus, DecidedStatus>> = {
  [LicenseStatus.UNSPECIFIED]: "active",
  [LicenseStatus.PENDING]: "active",
  [LicenseStatus.ACTIVE]: "active",
  [LicenseStatus.PAST_DUE]: "past_due",
  [LicenseStatus.GRACE]: "active",
  [LicenseStatus.SUSPENDED]: "suspended",
  [LicenseStatus.EXPIRED]: "active",
  [LicenseStatus.CANCELLED]: "cancelled",
  [LicenseStatus.REVOKED]: "revoked",
};

function pastOf(row: LicenseRow["message"]): Past {
  const unpaidGraceUntil = dateFromProto("unpaid_grace_until", row.unpaidGraceUntil);
  const cancelsAt = dateFromProto("cancels_at", row.cancelsAt);
  const endedAt = dateFromProto("ended_at", row.endedAt);
  const createdAt = dateFromProto("created_at", row.createdAt);
  return {
    status: decidedStatus[row.status],
    statusReason: row.statusReason,
    suspendedByBilling: row.suspendedByBilling,
    ...(unpaidGraceUntil && { unpaidGraceUntil }),
    ...(cancelsAt && { cancelsAt }),
    cancelReason: row.cancelReason,
    ...(endedAt && { endedAt }),
    ...(createdAt && { createdAt }),
    ...(row.graceDays !== undefined && { graceDays: row.graceDays }),
    unlimitedSeats: row.seats === -1n,
  };
}

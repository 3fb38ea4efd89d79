import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { ServiceError } from "@licet/platform/errors";
import type { Call } from "@licet/platform/rpc/call";
import type { Transaction } from "kysely";
import type { Context } from "./context.ts";
import { failure } from "./errors.ts";
import { appendChanges, recordLicenseChange, toRecorded, type Worker } from "./history.ts";
import { type Customer, insertCustomers, raiseEntitlementVersion, updateCustomer } from "./store/customers.ts";
import type { DB } from "./store/schema.ts";
import { findSnapshots } from "./store/snapshots.ts";

/**
 * Adds customers, whose entitlements begin with version 1: no licenses.
 *
 * @returns false when one of them exists; what was written then is to be rolled back
 */
export async function addCustomers(
  ctx: Context,
  tx: Transaction<DB>,
  by: Call | Worker,
  customers: readonly Customer[],
): Promise<boolean> {
  if ((await insertCustomers(tx, by.tenant, customers)) < customers.length) return false;
  const since = new Map(customers.map(({ customerId, createdAt }) => [customerId, createdAt]));
  const snapshots = await findSnapshots(tx, by.tenant, [...since.keys()]);
  const cause = LicenseChangeCause.CUSTOMER_CREATED;
  const changes = snapshots.map((snapshot) => {
    const { customerId, version } = snapshot;
    const effectiveAt = since.get(customerId) ?? snapshot.issuedAt;
    return toRecorded(ctx, by, { customerId, version, cause, effectiveAt }, snapshot);
  });
  await appendChanges(tx, by.tenant, changes);
  return true;
}

/** Stores a customer whose data were changed, under its row's lock. Returns its entitlement version. */
export async function changeCustomer(
  ctx: Context,
  tx: Transaction<DB>,
  by: Call | Worker,
  customer: Customer,
): Promise<bigint> {
  const { customerId } = customer;
  const version = await raiseEntitlementVersion(tx, by.tenant, customerId);
  await updateCustomer(tx, by.tenant, customer);
  await recordLicenseChange(ctx, tx, by, { customerId, version, cause: LicenseChangeCause.CUSTOMER_UPDATED });
  return version;
}

/** The error for a customer whose id is taken. */
export function customerExists(customerId: string): ServiceError {
  return failure("CUSTOMER_EXISTS", `A customer ${customerId} exists already.`);
}

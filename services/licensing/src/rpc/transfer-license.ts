import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicensingService,
  TransferLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { transfer } from "../domain/lifecycle.ts";
import { checkPlanFor } from "../domain/provision.ts";
import { nextDueAt } from "../domain/schedule.ts";
import { failure } from "../errors.ts";
import { recordLicenseChange } from "../history.ts";
import { checkRoom, openLicense } from "../lifecycle.ts";
import { checkNoSeatTaken } from "../seats.ts";
import { getPlan } from "../store/catalog.ts";
import { lockCustomer, raiseEntitlementVersion } from "../store/customers.ts";
import { findKeyInForce } from "../store/license-keys.ts";
import { getLicense, updateLicense } from "../store/licenses.ts";
import type { DB } from "../store/schema.ts";
import { licenseToProto } from "./convert.ts";
import { once } from "./once.ts";

/**
 * Gives a license to another customer. Both rows are locked, that of the lower id first, so two transfers between the
 * same two customers don't wait for each other; the one who loses it is told first.
 */
export const transferLicense: Handler<typeof LicensingService, "transferLicense", Context> = (ctx, call, request) =>
  once(ctx, call, request, TransferLicenseResponseSchema, async (tx) => {
    const { tenant } = call;
    const { toCustomerId, reason } = request;
    const { customerId } = await getLicense(tx, tenant, request.licenseId);
    for (const id of [...new Set([customerId, toCustomerId])].sort()) await lockCustomer(tx, tenant, id);
    const now = ctx.now();
    const license = await openLicense(ctx, tx, tenant, { customerId, asked: request, now });
    const moved = transfer(license, toCustomerId, now);
    await checkUnderNoKey(tx, tenant, license.licenseId, now);
    const { plan, product } = license;
    if (plan) checkPlanFor(await getPlan(tx, tenant, product, plan.code, plan.version), toCustomerId);
    await checkRoom(tx, tenant, toCustomerId);
    await checkNoSeatTaken(ctx, tx, tenant, license);
    await updateLicense(tx, tenant, moved, nextDueAt(moved, now));
    const { licenseId } = license;
    const before = licenseToProto(license, now);
    const after = licenseToProto(moved, now);
    const change = { licenseId, reason, effectiveAt: now, before };
    const left = await raiseEntitlementVersion(tx, tenant, customerId);
    const away = { customerId, version: left, cause: LicenseChangeCause.TRANSFERRED_AWAY } as const;
    await recordLicenseChange(ctx, tx, call, { ...change, ...away });
    const version = await raiseEntitlementVersion(tx, tenant, toCustomerId);
    const arrived = { customerId: toCustomerId, version, cause: LicenseChangeCause.TRANSFERRED, after } as const;
    await recordLicenseChange(ctx, tx, call, { ...change, ...arrived });
    return {
      license: after,
      consistencyToken: { customerId: toCustomerId, version },
      previousConsistencyToken: { customerId, version: left },
    };
  });

/** A key stays with the customer that has it, and must not prove what is another's. The holder row's lock is held. */
async function checkUnderNoKey(tx: Transaction<DB>, tenant: string, licenseId: string, now: Date): Promise<void> {
  const keyId = await findKeyInForce(tx, tenant, licenseId, now);
  if (keyId === undefined) return;
  const message = `License ${licenseId} lies under key ${keyId}, which its holder has; revoke its keys, then transfer it.`;
  throw failure("LICENSE_UNDER_KEY", message, { key_id: keyId });
}

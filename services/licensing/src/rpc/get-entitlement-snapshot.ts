import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { customerNotFound } from "../store/customers.ts";
import { findSnapshot } from "../store/snapshots.ts";
import { snapshotToProto } from "./convert.ts";

/** Returns what holds for a customer, to another service. */
export const getEntitlementSnapshot: Handler<typeof LicensingService, "getEntitlementSnapshot", Context> = async (
  ctx,
  call,
  request,
) => {
  const snapshot = await inTenant(ctx.db, call.tenant, (tx) => findSnapshot(tx, call.tenant, request.customerId), {
    readOnly: true,
  });
  if (!snapshot) throw customerNotFound(request.customerId);
  return { snapshot: snapshotToProto(snapshot) };
};

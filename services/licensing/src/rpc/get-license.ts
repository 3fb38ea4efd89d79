import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getLicense as load } from "../store/licenses.ts";
import { licenseToProto } from "./convert.ts";

/** Returns a license with its status now. */
export const getLicense: Handler<typeof LicensingService, "getLicense", Context> = async (ctx, call, request) => {
  const license = await inTenant(ctx.db, call.tenant, (tx) => load(tx, call.tenant, request.licenseId), {
    readOnly: true,
  });
  return { license: licenseToProto(license, ctx.now()) };
};

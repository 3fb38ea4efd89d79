import type { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getPlan as load } from "../store/catalog.ts";
import { planToProto } from "./convert.ts";

/** Returns a plan in its latest or a given version. */
export const getPlan: Handler<typeof CatalogService, "getPlan", Context> = async (ctx, call, request) => {
  const plan = await inTenant(
    ctx.db,
    call.tenant,
    (tx) => load(tx, call.tenant, request.product, request.plan, request.version),
    { readOnly: true },
  );
  return { plan: planToProto(plan) };
};

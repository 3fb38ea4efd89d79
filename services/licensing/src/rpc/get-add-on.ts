import type { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getAddOn as load } from "../store/add-ons.ts";
import { addOnToProto } from "./convert-add-ons.ts";

/** Returns an add-on in its latest or a given version. */
export const getAddOn: Handler<typeof CatalogService, "getAddOn", Context> = async (ctx, call, request) => {
  const addOn = await inTenant(
    ctx.db,
    call.tenant,
    (tx) => load(tx, call.tenant, request.product, request.addOn, request.version),
    { readOnly: true },
  );
  return { addOn: addOnToProto(addOn) };
};

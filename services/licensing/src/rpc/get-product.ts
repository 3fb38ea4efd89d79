import type { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getProduct as load } from "../store/catalog.ts";
import { productToProto } from "./convert.ts";

/** Returns a product. */
export const getProduct: Handler<typeof CatalogService, "getProduct", Context> = async (ctx, call, request) => {
  const product = await inTenant(ctx.db, call.tenant, (tx) => load(tx, call.tenant, request.product), {
    readOnly: true,
  });
  return { product: productToProto(product) };
};

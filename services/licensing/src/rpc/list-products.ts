import type { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { listProducts as select } from "../store/catalog.ts";
import { productToProto } from "./convert.ts";

/** Lists the tenant's products. */
export const listProducts: Handler<typeof CatalogService, "listProducts", Context> = async (ctx, call, request) => {
  const [after = ""] = decodePageToken(request.pageToken, 1) ?? [];
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await inTenant(ctx.db, call.tenant, (tx) => select(tx, call.tenant, after, pageSize + 1), {
    readOnly: true,
  });
  const { items, nextPageToken } = toPage(rows, pageSize, (product) => [product.product]);
  return { products: items.map(productToProto), nextPageToken };
};

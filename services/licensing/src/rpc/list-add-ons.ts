import type { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { listAddOns as select } from "../store/add-ons.ts";
import { addOnToProto } from "./convert-add-ons.ts";

/** Lists the add-ons of one product, or of all, in their latest versions. */
export const listAddOns: Handler<typeof CatalogService, "listAddOns", Context> = async (ctx, call, request) => {
  const [product = "", addOn = ""] = decodePageToken(request.pageToken, 2) ?? [];
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await inTenant(
    ctx.db,
    call.tenant,
    (tx) => select(tx, call.tenant, request.product, { product, addOn }, pageSize + 1),
    { readOnly: true },
  );
  const { items, nextPageToken } = toPage(rows, pageSize, (row) => [row.product, row.addOn]);
  return { addOns: items.map(addOnToProto), nextPageToken };
};

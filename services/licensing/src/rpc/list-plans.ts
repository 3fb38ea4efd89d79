import type { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { listPlans as select } from "../store/catalog.ts";
import { planToProto } from "./convert.ts";

/** Lists the plans of one product, or of all, in their latest versions; all of them, or what a customer can be given. */
export const listPlans: Handler<typeof CatalogService, "listPlans", Context> = async (ctx, call, request) => {
  const [product = "", plan = ""] = decodePageToken(request.pageToken, 2) ?? [];
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await inTenant(
    ctx.db,
    call.tenant,
    (tx) => select(tx, call.tenant, request, { product, plan }, pageSize + 1),
    { readOnly: true },
  );
  const { items, nextPageToken } = toPage(rows, pageSize, (row) => [row.product, row.plan]);
  return { plans: items.map(planToProto), nextPageToken };
};

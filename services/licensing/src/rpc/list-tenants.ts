import type { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { asSystem } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { listTenants as select } from "../store/tenants.ts";
import { tenantToProto } from "./convert.ts";

/** Lists the tenants of the installation. */
export const listTenants: Handler<typeof TenantService, "listTenants", Context> = async (ctx, _call, request) => {
  const [after = ""] = decodePageToken(request.pageToken, 1) ?? [];
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await asSystem(ctx.db, (tx) => select(tx, after, pageSize + 1));
  const { items, nextPageToken } = toPage(rows, pageSize, (tenant) => [tenant.tenantId]);
  return { tenants: items.map(tenantToProto), nextPageToken };
};

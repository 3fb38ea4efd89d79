import type { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, pageTokenDate, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { listApiKeys as select } from "../store/tenants.ts";
import { apiKeyToProto } from "./convert.ts";

/** Lists the tenant's keys. */
export const listApiKeys: Handler<typeof TenantService, "listApiKeys", Context> = async (ctx, call, request) => {
  const [createdAt, keyId] = decodePageToken(request.pageToken, 2) ?? [];
  const after =
    createdAt !== undefined && keyId !== undefined ? { createdAt: pageTokenDate(createdAt), keyId } : undefined;
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await inTenant(ctx.db, call.tenant, (tx) => select(tx, call.tenant, after, pageSize + 1), {
    readOnly: true,
  });
  const { items, nextPageToken } = toPage(rows, pageSize, (key) => [key.createdAt.toISOString(), key.keyId]);
  return { apiKeys: items.map(apiKeyToProto), nextPageToken };
};

import { CreateTenantResponseSchema, type TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { setTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { failure } from "../errors.ts";
import { insertTenant } from "../store/tenants.ts";
import { apiKeyToProto, tenantToProto } from "./convert.ts";
import { issueApiKey } from "./create-api-key.ts";
import { once } from "./once.ts";

/** Creates a tenant and its first admin key, by which everything else is done for it. */
export const createTenant: Handler<typeof TenantService, "createTenant", Context> = (ctx, call, request) =>
  once(
    ctx,
    call,
    request,
    CreateTenantResponseSchema,
    async (tx) => {
      const tenant = { tenantId: request.tenantId, name: request.name, createdAt: ctx.now() };
      // The operator's transaction belongs to the platform; these rows belong to the new tenant.
      await setTenant(tx, tenant.tenantId);
      if (!(await insertTenant(tx, tenant))) {
        throw failure("TENANT_EXISTS", `A tenant ${tenant.tenantId} exists already.`);
      }
      const { apiKey, key } = await issueApiKey(ctx, tx, call.credential.id, {
        tenantId: tenant.tenantId,
        name: "first admin key",
        role: "admin",
      });
      await setTenant(tx, call.tenant);
      return { tenant: tenantToProto(tenant), adminApiKey: apiKeyToProto(apiKey), adminApiKeySecret: key };
    },
    { secret: true },
  );

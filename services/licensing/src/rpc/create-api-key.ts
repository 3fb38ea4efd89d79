import { CreateApiKeyResponseSchema, type TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { generateApiKey, PLATFORM_TENANT } from "@licet/platform/credentials";
import { invalidArgument } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import type { Role } from "../domain/roles.ts";
import { recordCredentialChange } from "../history.ts";
import type { DB } from "../store/schema.ts";
import { type ApiKey, insertApiKey } from "../store/tenants.ts";
import { apiKeyToProto, dateFromProto, roleFromProto } from "./convert.ts";
import { once } from "./once.ts";

/** Issues a key for the caller's tenant. */
export const createApiKey: Handler<typeof TenantService, "createApiKey", Context> = (ctx, call, request) =>
  once(
    ctx,
    call,
    request,
    CreateApiKeyResponseSchema,
    async (tx) => {
      const role = roleFromProto(request.role);
      if ((role === "operator") !== (call.tenant === PLATFORM_TENANT)) {
        throw invalidArgument("role", "must be OPERATOR for the platform's keys, and any other role for a tenant's");
      }
      const expiresAt = dateFromProto("expires_at", request.expiresAt);
      const { apiKey, key } = await issueApiKey(ctx, tx, call.credential.id, {
        tenantId: call.tenant,
        name: request.name,
        role,
        ...(expiresAt && { expiresAt }),
      });
      return { apiKey: apiKeyToProto(apiKey), secret: key };
    },
    { secret: true },
  );

/**
 * Makes and stores a new key; the transaction's tenant is the key's. `key` is the whole key with its secret, which is
 * kept nowhere else.
 */
export async function issueApiKey(
  ctx: Context,
  tx: Transaction<DB>,
  actor: string,
  wanted: { tenantId: string; name: string; role: Role; expiresAt?: Date },
): Promise<{ apiKey: ApiKey; key: string }> {
  const { key, keyId, secretHash } = generateApiKey();
  const apiKey: ApiKey = { ...wanted, keyId, secretHash, version: 1n, createdAt: ctx.now() };
  await insertApiKey(tx, apiKey);
  await recordCredentialChange(ctx, tx, actor, apiKey);
  return { apiKey, key };
}

import { RevokeApiKeyResponseSchema, type TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { failure } from "../errors.ts";
import { recordCredentialChange } from "../history.ts";
import { type ApiKey, lockApiKey, updateApiKey } from "../store/tenants.ts";
import { apiKeyToProto } from "./convert.ts";
import { once } from "./once.ts";

/** Ends a key; ending it again changes nothing. */
export const revokeApiKey: Handler<typeof TenantService, "revokeApiKey", Context> = (ctx, call, request) =>
  once(ctx, call, request, RevokeApiKeyResponseSchema, async (tx) => {
    const found = await lockApiKey(tx, call.tenant, request.keyId);
    if (!found) throw failure("API_KEY_NOT_FOUND", `There is no API key ${request.keyId}.`);
    if (found.revokedAt) return { apiKey: apiKeyToProto(found) };
    const revoked: ApiKey = { ...found, version: found.version + 1n, revokedAt: ctx.now() };
    await updateApiKey(tx, revoked);
    await recordCredentialChange(ctx, tx, call.credential.id, revoked);
    return { apiKey: apiKeyToProto(revoked) };
  });

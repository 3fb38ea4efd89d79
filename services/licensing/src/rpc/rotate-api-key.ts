import { RotateApiKeyResponseSchema, type TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkReplaceable, endOfOverlap, scopesOfKey } from "../domain/api-key.ts";
import { failure } from "../errors.ts";
import { recordCredentialChange } from "../history.ts";
import { type ApiKey, lockApiKey, updateApiKey } from "../store/tenants.ts";
import { apiKeyToProto } from "./convert.ts";
import { checkMayGive, issueApiKey } from "./create-api-key.ts";
import { once } from "./once.ts";

/** For how long the old key is still good where nothing else is said. */
const DEFAULT_OVERLAP_SECONDS = 86_400;

/** Replaces a key by a new one that may do the same. The old one carries its end, so it needs no job that ends it. */
export const rotateApiKey: Handler<typeof TenantService, "rotateApiKey", Context> = (ctx, call, request) =>
  once(
    ctx,
    call,
    request,
    RotateApiKeyResponseSchema,
    async (tx) => {
      const now = ctx.now();
      const old = await lockApiKey(tx, call.tenant, request.keyId);
      if (!old) throw failure("API_KEY_NOT_FOUND", `There is no API key ${request.keyId}.`);
      checkReplaceable(old, now);
      checkMayGive(call.credential, scopesOfKey(old));
      const { tenantId, name, role, scopes, expiresAt } = old;
      const { apiKey, key } = await issueApiKey(ctx, tx, call.credential.id, {
        tenantId,
        name,
        role,
        ...(scopes && { scopes }),
        ...(expiresAt && { expiresAt }),
      });
      const replaced: ApiKey = {
        ...old,
        version: old.version + 1n,
        expiresAt: endOfOverlap(old, request.overlapSeconds ?? DEFAULT_OVERLAP_SECONDS, now),
        replacedBy: apiKey.keyId,
      };
      await updateApiKey(tx, replaced);
      await recordCredentialChange(ctx, tx, call.credential.id, replaced);
      return { apiKey: apiKeyToProto(apiKey), secret: key, replaced: apiKeyToProto(replaced) };
    },
    { secret: true },
  );

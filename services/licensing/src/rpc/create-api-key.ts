import { CreateApiKeyResponseSchema, type TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { type Credential, generateApiKey, PLATFORM_TENANT } from "@licet/platform/credentials";
import { invalidArgument, platformError } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { knownScopes, scopesBeyond, scopesOfKey } from "../domain/api-key.ts";
import { type Role, scopesOf } from "../domain/roles.ts";
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
      const scopes = checkScopes(role, request.scopes);
      checkMayGive(call.credential, scopesOfKey({ role, ...(scopes && { scopes }) }));
      const expiresAt = dateFromProto("expires_at", request.expiresAt);
      const { apiKey, key } = await issueApiKey(ctx, tx, call.credential.id, {
        tenantId: call.tenant,
        name: request.name,
        role,
        ...(scopes && { scopes }),
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
  wanted: Pick<ApiKey, "tenantId" | "name" | "role" | "scopes" | "expiresAt">,
): Promise<{ apiKey: ApiKey; key: string }> {
  const { key, keyId, secretHash } = generateApiKey();
  const apiKey: ApiKey = { ...wanted, keyId, secretHash, version: 1n, createdAt: ctx.now() };
  await insertApiKey(tx, apiKey);
  await recordCredentialChange(ctx, tx, actor, apiKey);
  return { apiKey, key };
}

/** The scopes that a request wants of a role; undefined: all of them. */
function checkScopes(role: Role, wanted: readonly string[]): readonly string[] | undefined {
  wanted.forEach((scope, index) => {
    const field = `scopes[${index}]`;
    if (!knownScopes.has(scope)) throw invalidArgument(field, `${scope} is no scope; ${role} has ${given(role)}`);
    if (scopesBeyond([scope], scopesOf[role]).length > 0) {
      throw invalidArgument(field, `${scope} is beyond the role ${role}, which has ${given(role)}`);
    }
  });
  return wanted.length === 0 ? undefined : wanted;
}

function given(role: Role): string {
  return scopesOf[role].join(", ");
}

/**
 * Refuses to hand out a key that may do what its issuer may not: whoever may issue keys could give themselves anything.
 *
 * @throws ServiceError PERMISSION_DENIED `SCOPE_MISSING`
 */
export function checkMayGive(issuer: Credential, scopes: readonly string[]): void {
  const [lacking] = scopesBeyond(scopes, issuer.scopes);
  if (lacking === undefined) return;
  const message = `a key with the scope ${lacking} is issued by one that has it, which this credential has not`;
  throw platformError("SCOPE_MISSING", message, { metadata: { required_scope: lacking } });
}

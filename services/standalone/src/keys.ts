import { createClient } from "@connectrpc/connect";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { type Credential, generateApiKey, PLATFORM_TENANT } from "@licet/platform/credentials";
import { ServiceError } from "@licet/platform/errors";
import { newId } from "@licet/platform/ids";
import type { Insider } from "./insider.ts";
import type { ApiKeys } from "./run-file.ts";

/** The name of the operator's place in `run.json`, which belongs to no tenant. */
const OPERATOR = { tenant: "platform", role: "operator" } as const;

/** The roles that each demo tenant gets a key for. */
const tenantRoles = {
  admin: ApiKeyRole.ADMIN,
  brand: ApiKeyRole.BRAND,
  product: ApiKeyRole.PRODUCT,
  service: ApiKeyRole.SERVICE,
  viewer: ApiKeyRole.VIEWER,
} as const;

/** What {@link ensureKeys} needs. */
export interface KeysOptions {
  /** Keys of earlier runs and of the seeding; those that still work are kept. */
  readonly known: ApiKeys;
  /** Tenants that get a key per role. */
  readonly tenants: readonly string[];
  readonly insider: Insider;
  authenticate(headers: Headers): Promise<Credential>;
  ensureOperatorKey(key: { keyId: string; secretHash: Uint8Array }): Promise<void>;
}

/**
 * The keys for `run.json`: every known one that still works, and a new one for each that should be there. Secrets are
 * stored nowhere, so a lost key can only be replaced.
 */
export async function ensureKeys(options: KeysOptions): Promise<ApiKeys> {
  const keys: Record<string, Record<string, string>> = {};
  for (const [tenant, known] of Object.entries(options.known)) {
    const working: Record<string, string> = {};
    for (const [role, key] of Object.entries(known)) if (await works(options, tenant, role, key)) working[role] = key;
    if (Object.keys(working).length > 0) keys[tenant] = working;
  }
  keys[OPERATOR.tenant] ??= { [OPERATOR.role]: await makeOperatorKey(options) };
  for (const tenant of options.tenants) {
    const client = createClient(TenantService, options.insider(tenant));
    const ofTenant = keys[tenant] ?? {};
    for (const [role, value] of Object.entries(tenantRoles)) {
      if (ofTenant[role] !== undefined) continue;
      const created = await client.createApiKey({ requestId: newId(), name: `${role} (run.json)`, role: value });
      ofTenant[role] = created.secret;
    }
    keys[tenant] = ofTenant;
  }
  return keys;
}

async function works({ authenticate }: KeysOptions, tenant: string, role: string, key: string): Promise<boolean> {
  const owner = tenant === OPERATOR.tenant ? PLATFORM_TENANT : tenant;
  try {
    const credential = await authenticate(new Headers({ "x-api-key": key }));
    return credential.tenant === owner && credential.role === role;
  } catch (error) {
    if (error instanceof ServiceError && error.code === "UNAUTHENTICATED") return false;
    throw error;
  }
}

async function makeOperatorKey({ ensureOperatorKey }: KeysOptions): Promise<string> {
  const { key, keyId, secretHash } = generateApiKey();
  await ensureOperatorKey({ keyId, secretHash });
  return key;
}

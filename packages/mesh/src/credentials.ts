import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import {
  type CredentialChanged,
  CredentialChangedSchema,
} from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { type Credentials, createCredentials, type StoredCredential } from "@licet/platform/credentials";
import { platformError, ServiceError } from "@licet/platform/errors";
import type { EventBus, Subscription } from "@licet/platform/events/bus";
import { createConsumer } from "@licet/platform/events/consumer";
import type { Logger } from "@licet/platform/logging";
import { createKeyUse, type KeyUse } from "./key-use.ts";

/** What the services of a mesh may ask of each other with the key that they share. */
export const meshScopes = ["mesh", "catalog:read", "customers:read", "licenses:read", "usage:read"] as const;

/** How long licensing may take to answer about one key, in milliseconds. */
const resolveTimeoutMs = 1_000;
/** What a caller is asked to wait, in milliseconds, when licensing could not be asked about its key. */
const retryAfterMs = 500;

/** What {@link createLicensingCredentials} needs; the clock has a working default. */
export interface LicensingCredentialsOptions {
  /** Reaches TenantService with the mesh's key. */
  readonly licensing: Transport;
  /** The key that services of the mesh present. */
  readonly meshKey: string;
  readonly logger: Logger;
  /** The clock, in epoch milliseconds. */
  readonly now?: () => number;
}

/** Credentials of a process that has licensing to ask. */
export interface LicensingCredentials extends Credentials {
  /** When which key was used, as licensing is told. */
  readonly use: Pick<KeyUse, "start" | "report" | "stop">;
}

/**
 * Creates credentials that know the mesh's key and the API keys of all tenants: from the events that
 * {@link followCredentials} applies, and else from licensing.
 */
export function createLicensingCredentials(options: LicensingCredentialsOptions): LicensingCredentials {
  const { licensing, meshKey, logger, now } = options;
  const tenants = createClient(TenantService, licensing);
  const use = createKeyUse({ licensing, apply: (changed) => credentials.apply(toStored(changed)), logger });
  const credentials = createCredentials({
    resolve: (keyId) => resolve(tenants, keyId),
    mesh: { key: meshKey, scopes: meshScopes },
    used: use.note,
    ...(now && { now }),
  });
  return { ...credentials, use };
}

/** Applies every change of an API key, those of the past first. The topic is compacted, so that is one record a key. */
export function followCredentials(credentials: Credentials, bus: EventBus, logger: Logger): Promise<Subscription> {
  return createConsumer({
    bus,
    desc: CredentialChangedSchema,
    reader: { kind: "all", from: "beginning" },
    apply: async (messages) => {
      for (const { message } of messages) credentials.apply(toStored(message));
    },
    logger,
  });
}

async function resolve(tenants: Client<typeof TenantService>, keyId: string): Promise<StoredCredential | undefined> {
  try {
    const { credential } = await tenants.resolveCredential({ keyId }, { timeoutMs: resolveTimeoutMs });
    return credential && toStored(credential);
  } catch (error) {
    if (error instanceof ServiceError && error.code === "NOT_FOUND") return undefined;
    // Whatever licensing answered to us is our affair, not the caller's: it is the cause, for the log.
    const message = `the licensing service can't be asked about the API key ${keyId}; try again`;
    throw platformError("DEPENDENCY_UNAVAILABLE", message, { cause: error, retryAfterMs });
  }
}

function toStored(wire: CredentialChanged): StoredCredential {
  return {
    keyId: wire.keyId,
    tenant: wire.tenantId,
    role: ApiKeyRole[wire.role]?.toLowerCase() ?? "unknown",
    scopes: wire.scopes,
    secretHash: wire.secretHash,
    version: wire.version,
    revoked: wire.revokedAt !== undefined,
    ...(wire.expiresAt && { expiresAt: timestampDate(wire.expiresAt) }),
  };
}

import { hash, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http2";
import { platformError, type ServiceError } from "./errors.ts";
import { LatestMap } from "./latest-map.ts";
import { createReplica } from "./replica.ts";

/** The tenant of calls that belong to no tenant: administration of tenants, replication between services. */
export const PLATFORM_TENANT = "_platform";

/** The header in which a mesh credential, and only it, names the tenant it acts for. */
export const TENANT_HEADER = "licet-tenant";

/** Who is calling, as proved by the call's headers. */
export interface Credential {
  /** The key's public id, or `mesh`. Not secret: it may be logged. */
  id: string;
  /** The tenant that every row read or written by the call belongs to. */
  tenant: string;
  /** The role that the key was made for. */
  role: string;
  /** What the caller may do; compared with a method's `required_scope`. */
  scopes: ReadonlySet<string>;
  /** `mesh` is a service of our own, which may name a tenant. */
  kind: "api_key" | "mesh";
}

/** An API key as it is stored and replicated: everything but the secret. */
export interface StoredCredential {
  /** The public half of the key, `lct_` and 16 characters. */
  keyId: string;
  tenant: string;
  role: string;
  scopes: readonly string[];
  /** SHA-256 of the secret half's text. The secret has 256 random bits, so no slow hash is needed. */
  secretHash: Uint8Array;
  /** Grows with every change of the key; a lower or equal one is never applied. */
  version: bigint;
  revoked: boolean;
  /** From this moment on the key is refused; absent: it does not expire. */
  expiresAt?: Date;
}

/** What {@link createCredentials} needs. Counts and times have working defaults. */
export interface CredentialsOptions {
  /** Looks a key up at its owner; undefined when there is none. May reject with a ServiceError, which reaches the caller. */
  resolve(keyId: string): Promise<StoredCredential | undefined>;
  /** The secret that the services of one mesh share, not of an API key's form, and what it may do. */
  mesh?: { key: string; scopes: readonly string[] };
  /** How many known keys are kept; beyond it the least recently used goes. */
  maxEntries?: number;
  /** How long, in milliseconds, an unknown key id stays unknown without asking again. */
  negativeTtlMs?: number;
  /** Told of each call that an API key proves, with the version of the key that is known here. Runs on every call: it must be quick. */
  used?: (keyId: string, version: bigint) => void;
  /** The clock, in epoch milliseconds. */
  now?: () => number;
}

/** The credentials that this process knows. */
export interface Credentials {
  /**
   * Proves a call by `authorization: Bearer <key>` or, when that header is
   * absent, `x-api-key: <key>`.
   *
   * @throws {ServiceError} UNAUTHENTICATED with CREDENTIAL_MISSING or
   *   CREDENTIAL_INVALID; PERMISSION_DENIED with SCOPE_MISSING when an API key
   *   names a tenant; UNAVAILABLE with OVERLOADED.
   */
  authenticate(headers: Headers): Promise<Credential>;
  /**
   * As `authenticate`, for an API key that it has proved before by the same text, that has not changed since, is still
   * known here and has not expired. Undefined otherwise, also where `authenticate` would refuse.
   */
  authenticateNow(headers: IncomingHttpHeaders): Credential | undefined;
  /** Takes over a change of a key, unless an equal or higher version is known already. */
  apply(changed: StoredCredential): void;
}

/** How many key ids are remembered as unknown. */
const MAX_UNKNOWN_KEYS = 10_000;
/** How many texts of headers are remembered as proved. */
const MAX_PROOFS = 10_000;
/** How many keys may be looked up at once. */
const MAX_LOOKUPS = 64;

const keyPattern = /^(lct_[0-9a-hjkmnp-tv-z]{16})\.([A-Za-z0-9_-]{43})$/;
/** Crockford's alphabet: no i, l, o, u, so that an id survives being read aloud. */
const base32 = "0123456789abcdefghjkmnpqrstvwxyz";
const tenantPattern = /^[a-z0-9_][a-z0-9_.-]{0,62}$/;

/**
 * Makes a new API key, `lct_<16 base32 characters>.<43 base64url characters>`.
 * The id before the point has 80 random bits and is public; the secret behind
 * it has 256 and is never stored.
 *
 * @param random returns so many random bytes; for tests.
 */
export function generateApiKey(random: (size: number) => Uint8Array = randomBytes): {
  key: string;
  keyId: string;
  secretHash: Uint8Array;
} {
  const id = Array.from(random(16), (byte) => base32[byte & 31]).join("");
  const secret = Buffer.from(random(32)).toString("base64url");
  const keyId = `lct_${id}`;
  return { key: `${keyId}.${secret}`, keyId, secretHash: sha256(secret) };
}

/** Splits an API key into its halves; undefined when it does not have the form of one. */
export function parseApiKey(text: string): { keyId: string; secret: string } | undefined {
  const [, keyId, secret] = keyPattern.exec(text) ?? [];
  return keyId === undefined || secret === undefined ? undefined : { keyId, secret };
}

/** Creates the credentials of a process; they start empty and fill by `apply` and by look-ups. */
export function createCredentials(options: CredentialsOptions): Credentials {
  const { resolve, maxEntries = 100_000, negativeTtlMs = 5_000, now = Date.now } = options;
  const replica = createReplica<Known>({
    name: "API keys",
    lookUp: async (keyId) => {
      const stored = await resolve(keyId);
      return stored && toKnown(stored);
    },
    maxEntries,
    maxAbsent: MAX_UNKNOWN_KEYS,
    absentTtlMs: negativeTtlMs,
    maxLookups: MAX_LOOKUPS,
    now,
  });
  const mesh = options.mesh && { hash: sha256(options.mesh.key), scopes: new Set(options.mesh.scopes) };
  if (options.mesh !== undefined && parseApiKey(options.mesh.key) !== undefined) {
    throw new Error("the mesh key has the form of an API key; choose another one");
  }

  // By the header's text: hashing the secret once more costs as much as an answer. What is kept in memory this way came
  // from there, and goes with the next change of the key or the oldest of too many.
  const proofs = new LatestMap<Proof>();
  const recall = (text: string, bearer: boolean): Credential | undefined => {
    const proof = proofs.get(text);
    if (proof === undefined || proof.bearer !== bearer) return undefined;
    const { known } = proof;
    // A key that was revoked or changed is another object; one that was dropped has to be looked up.
    if (replica.peek(known.stored.keyId) !== known || hasExpired(known.stored, now())) {
      proofs.delete(text);
      return undefined;
    }
    options.used?.(known.stored.keyId, known.version);
    return known.credential;
  };

  return {
    apply: (changed) => void replica.apply(changed.keyId, toKnown(changed)),
    authenticateNow(headers) {
      const { authorization } = headers;
      const text = authorization ?? headers["x-api-key"];
      if (typeof text !== "string" || headers[TENANT_HEADER] !== undefined) return undefined;
      return recall(text, authorization !== undefined);
    },
    async authenticate(headers) {
      const authorization = headers.get("authorization");
      const tenant = headers.get(TENANT_HEADER);
      const presented = authorization ?? headers.get("x-api-key") ?? "";
      const recalled = tenant === null ? recall(presented, authorization !== null) : undefined;
      if (recalled !== undefined) return recalled;
      const text = presentedKey(headers);
      const key = parseApiKey(text);
      if (key === undefined) {
        if (mesh !== undefined && timingSafeEqual(sha256(text), mesh.hash)) return meshCredential(mesh.scopes, tenant);
        throw invalid("the API key is malformed: it reads lct_<16 characters>.<43 characters>");
      }
      const known = await replica.get(key.keyId);
      const credential = verify(known, key.secret, now());
      if (tenant !== null) {
        const message = `an API key belongs to one tenant and may not send the header ${TENANT_HEADER}`;
        throw platformError("SCOPE_MISSING", message);
      }
      if (known !== undefined) {
        proofs.set(authorization ?? text, { known, bearer: authorization !== null });
        if (proofs.size > MAX_PROOFS) proofs.dropOldest();
      }
      options.used?.(key.keyId, known?.version ?? 0n);
      return credential;
    },
  };
}

/** That a header's text proves a key. */
interface Proof {
  readonly known: Known;
  /** Whether it was the header `authorization`; else `x-api-key`. */
  readonly bearer: boolean;
}

interface Known {
  readonly version: bigint;
  readonly stored: StoredCredential;
  /** Made once, because every call of the key gets it. */
  readonly credential: Credential;
}

function toKnown(stored: StoredCredential): Known {
  const { keyId, tenant, role, scopes, version } = stored;
  return { version, stored, credential: { id: keyId, tenant, role, scopes: new Set(scopes), kind: "api_key" } };
}

/**
 * The key that a call's headers present, proved or not.
 *
 * @throws {ServiceError} UNAUTHENTICATED with CREDENTIAL_MISSING or CREDENTIAL_INVALID when they present none.
 */
export function presentedKey(headers: Headers): string {
  const authorization = headers.get("authorization");
  if (authorization !== null) {
    const [, token] = /^Bearer ([^\s,]+)$/i.exec(authorization) ?? [];
    if (token === undefined) throw invalid("authorization must read `Bearer <API key>`");
    return token;
  }
  const key = headers.get("x-api-key");
  if (key === null || key === "") {
    const message = "no API key: send `authorization: Bearer <API key>` or `x-api-key: <API key>`";
    throw platformError("CREDENTIAL_MISSING", message);
  }
  return key;
}

function verify(known: Known | undefined, secret: string, nowMs: number): Credential {
  // An unknown id and a wrong secret answer alike: an id alone proves nothing.
  if (known === undefined || !timingSafeEqual(sha256(secret), known.stored.secretHash)) {
    throw invalid("the API key is unknown");
  }
  if (known.stored.revoked) throw invalid(`the API key ${known.stored.keyId} was revoked`);
  if (hasExpired(known.stored, nowMs)) {
    throw invalid(`the API key ${known.stored.keyId} expired at ${known.stored.expiresAt?.toISOString()}`);
  }
  return known.credential;
}

function hasExpired({ expiresAt }: StoredCredential, nowMs: number): boolean {
  return expiresAt !== undefined && expiresAt.getTime() <= nowMs;
}

function meshCredential(scopes: ReadonlySet<string>, tenant: string | null): Credential {
  if (tenant !== null && !tenantPattern.test(tenant)) {
    throw invalid(`the header ${TENANT_HEADER} does not name a tenant`);
  }
  return { id: "mesh", tenant: tenant ?? PLATFORM_TENANT, role: "mesh", scopes, kind: "mesh" };
}

function invalid(message: string): ServiceError {
  return platformError("CREDENTIAL_INVALID", message);
}

function sha256(text: string): Buffer {
  return hash("sha256", text, "buffer");
}

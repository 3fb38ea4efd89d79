import { failure } from "../errors.ts";
import { type Role, scopesOf } from "./roles.ts";

/** Where an API key stands. One that was replaced is told as that from the rotation on, though it is good for the overlap. */
export type ApiKeyStatus = "active" | "revoked" | "replaced" | "expired";

/** What decides where a key stands. */
export interface ApiKeyEnds {
  readonly keyId: string;
  /** From this moment on it is refused. */
  readonly expiresAt?: Date;
  readonly revokedAt?: Date;
  /** The id of the key that replaces it. */
  readonly replacedBy?: string;
}

/** The status of a key at a time. */
export function apiKeyStatusAt({ expiresAt, revokedAt, replacedBy }: ApiKeyEnds, now: Date): ApiKeyStatus {
  if (revokedAt) return "revoked";
  if (replacedBy) return "replaced";
  return expiresAt && expiresAt <= now ? "expired" : "active";
}

/**
 * Refuses to replace a key that has ended or is being replaced.
 *
 * @throws ServiceError FAILED_PRECONDITION `API_KEY_NOT_IN_FORCE` with its `status`
 */
export function checkReplaceable(key: ApiKeyEnds, now: Date): void {
  const status = apiKeyStatusAt(key, now);
  if (status === "active") return;
  const instead = key.replacedBy ? `the key ${key.replacedBy}, which replaces it` : "one that is in force";
  throw failure("API_KEY_NOT_IN_FORCE", `The API key ${key.keyId} is ${status}; rotate ${instead}.`, { status });
}

/** When a key that is replaced now ends: after the overlap, or at its own end if that is earlier. */
export function endOfOverlap({ expiresAt }: Pick<ApiKeyEnds, "expiresAt">, overlapSeconds: number, now: Date): Date {
  const end = new Date(now.getTime() + overlapSeconds * 1_000);
  return expiresAt && expiresAt < end ? expiresAt : end;
}

/**
 * The scopes that a key holds: those it was issued with, as far as its role still gives them; without such, all of its
 * role's.
 */
export function scopesOfKey({ role, scopes }: { readonly role: Role; readonly scopes?: readonly string[] }): string[] {
  const given = scopesOf[role];
  return scopes ? scopes.filter((scope) => given.includes(scope)) : [...given];
}

/** The scopes among `wanted` that `held` lacks. */
export function scopesBeyond(wanted: readonly string[], held: ReadonlySet<string> | readonly string[]): string[] {
  const having = new Set(held);
  return wanted.filter((scope) => !having.has(scope));
}

/** Every scope that some role gives. */
export const knownScopes: ReadonlySet<string> = new Set(Object.values(scopesOf).flat());

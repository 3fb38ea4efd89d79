import { createHash } from "node:crypto";
import { invalidArgument } from "@licet/platform/errors";

const FIELD = "resume_token";
/** Whatever version made it. */
const anyVersion = /^watch-([0-9]{1,3}):/;
/** As-of time and scope. A time has 15 digits at most, so it is exact as a number. */
const thisVersion = /^watch-1:([0-9]{1,15}):([\w-]{16})$/;

/** What a watch is about; a token holds for the same again. */
export interface WatchScope {
  readonly tenant: string;
  /** Empty: all of the tenant's. */
  readonly customerIds: readonly string[];
}

/**
 * The opaque token of a watch that was told everything committed before a time, in epoch milliseconds by the clock of
 * licensing's database. It names no place of an instance's own, so another one understands it, and nothing secret.
 */
export function encodeResumeToken(asOfMs: number, scope: WatchScope): string {
  return Buffer.from(`watch-1:${asOfMs}:${digest(scope)}`).toString("base64url");
}

/**
 * The time that a token stands for. Undefined for an empty one, and for one of another scope or of another version of
 * Licet, with which a watch begins from the beginning.
 *
 * @throws {ServiceError} INVALID_ARGUMENT when it never was a token of a watch.
 */
export function decodeResumeToken(token: string, scope: WatchScope): number | undefined {
  if (token === "") return undefined;
  const text = Buffer.from(token, "base64url").toString("latin1");
  if (!anyVersion.test(text)) {
    throw invalidArgument(
      FIELD,
      "is not a token of a watch; use resume_token of the last message that was dealt with, or leave it empty",
    );
  }
  const [, asOfMs, scopeOfToken] = thisVersion.exec(text) ?? [];
  return asOfMs !== undefined && scopeOfToken === digest(scope) ? Number(asOfMs) : undefined;
}

function digest({ tenant, customerIds }: WatchScope): string {
  const hash = createHash("sha256").update(JSON.stringify([tenant, ...[...customerIds].sort()]));
  return hash.digest("base64url").slice(0, 16);
}

import { createHash } from "node:crypto";
import { invalidArgument } from "@licet/platform/errors";

const FIELD = "resume_token";
/** Whatever version made it. */
const anyVersion = /^watch-([0-9]{1,3}):/;
/** As-of times of facts and of usage, and scope. A time has 15 digits at most, so it is exact as a number. */
const thisVersion = /^watch-2:([0-9]{1,15}):([0-9]{0,15}):([\w-]{16})$/;

/** What a watch is about; a token holds for the same again. */
export interface WatchScope {
  readonly tenant: string;
  /** Empty: all of the tenant's. */
  readonly customerIds: readonly string[];
}

/** What a watch was told, by times that every instance understands. */
export interface Told {
  /** Everything committed before, in epoch milliseconds by the clock of licensing's database. */
  readonly asOfMs: number;
  /** Of usage everything accepted before, in epoch milliseconds by usage metering's clock; undefined: nobody can tell. */
  readonly usageAsOfMs: number | undefined;
}

/**
 * Makes the opaque tokens of a watch that was told everything before some times. They name no place of an instance's own, so
 * another one understands them, and nothing secret.
 */
export function resumeTokensOf(scope: WatchScope): (told: Told) => string {
  const ofScope = digest(scope);
  return ({ asOfMs, usageAsOfMs }) =>
    Buffer.from(`watch-2:${asOfMs}:${usageAsOfMs ?? ""}:${ofScope}`).toString("base64url");
}

/**
 * The times that a token stands for. Undefined for an empty one, and for one of another scope or of another version of
 * Licet, with which a watch begins from the beginning.
 *
 * @throws {ServiceError} INVALID_ARGUMENT when it never was a token of a watch.
 */
export function decodeResumeToken(token: string, scope: WatchScope): Told | undefined {
  if (token === "") return undefined;
  const text = Buffer.from(token, "base64url").toString("latin1");
  if (!anyVersion.test(text)) {
    throw invalidArgument(
      FIELD,
      "is not a token of a watch; use resume_token of the last message that was dealt with, or leave it empty",
    );
  }
  const [, asOfMs, usageAsOfMs, scopeOfToken] = thisVersion.exec(text) ?? [];
  if (asOfMs === undefined || scopeOfToken !== digest(scope)) return undefined;
  return { asOfMs: Number(asOfMs), usageAsOfMs: usageAsOfMs ? Number(usageAsOfMs) : undefined };
}

function digest({ tenant, customerIds }: WatchScope): string {
  const hash = createHash("sha256").update(JSON.stringify([tenant, ...[...customerIds].sort()]));
  return hash.digest("base64url").slice(0, 16);
}

import { platformError, type ServiceError } from "../errors.ts";
import type { Call } from "./call.ts";

/** How far a caller has used what it may. */
export interface Allowance {
  /** Calls that it may make in a window. */
  readonly limit: number;
  /** Calls that are left of it, as far as this process knows. */
  readonly remaining: number;
  /** In how many milliseconds the next window begins. */
  readonly resetMs: number;
}

/**
 * Tells a caller how far it has used what it may, by the headers of draft-ietf-httpapi-ratelimit-headers-06:
 * `ratelimit-limit`, `ratelimit-remaining`, and `ratelimit-reset` in whole seconds, rounded up. Also errors carry them.
 */
export function tellAllowance({ responseHeaders }: Pick<Call, "responseHeaders">, allowance: Allowance): void {
  responseHeaders.set("ratelimit-limit", String(allowance.limit));
  responseHeaders.set("ratelimit-remaining", String(Math.max(0, allowance.remaining)));
  responseHeaders.set("ratelimit-reset", String(Math.max(0, Math.ceil(allowance.resetMs / 1_000))));
}

/**
 * The error for a call beyond what its caller may make.
 *
 * @param whose whom the limit is for, with the limit, in the middle of a sentence, such as `a license key may make 1440 calls a day`.
 */
export function rateLimited(whose: string, { resetMs }: Allowance): ServiceError {
  const retryAfterMs = Math.max(1, Math.ceil(resetMs));
  const seconds = Math.ceil(retryAfterMs / 1_000);
  return platformError("RATE_LIMITED", `${whose}; try again in ${seconds} s`, { retryAfterMs });
}

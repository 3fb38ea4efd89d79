import { platformError, type ServiceError } from "@licet/platform/errors";

// Validation has no reasons of its own: a denial is an answer, and what else can go wrong is the platform's.

/**
 * UNAVAILABLE with DEPENDENCY_UNAVAILABLE: memory does not have it, and the licensing service can't be asked. Whatever
 * licensing answered to us is our affair, not the caller's: it is the cause, for the log.
 *
 * @param what is missing, such as `customer "cairo-capital"`.
 */
export function licensingUnavailable(what: string, cause: unknown): ServiceError {
  const message = `the licensing service can't be asked about ${what}; try again`;
  return platformError("DEPENDENCY_UNAVAILABLE", message, { cause, retryAfterMs: 500 });
}

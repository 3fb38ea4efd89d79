import type { ErrorReason } from "@licet/contracts/licet/validation/v1/error_reason_pb";
import { type Code, platformError, ServiceError, type ServiceErrorInit } from "@licet/platform/errors";

/** The reasons of this service's errors, as `proto/licet/validation/v1/error_reason.proto` documents them. */
type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

// A reason of the contract without a code here does not compile.
const codes = {
  CONSUME_NOT_AVAILABLE: "UNIMPLEMENTED",
  TOO_MANY_WATCHES: "RESOURCE_EXHAUSTED",
  WATCHER_TOO_SLOW: "RESOURCE_EXHAUSTED",
} as const satisfies Record<Reason, Code>;

/** UNIMPLEMENTED: the question wants to count what the action uses. */
export function consumeNotAvailable(): ServiceError {
  const description =
    "nothing is counted together with a check yet; leave it out, give the value after the action in context, and track what was used";
  return failure("CONSUME_NOT_AVAILABLE", `consume: ${description}`, {
    violations: [{ field: "consume", description }],
  });
}

/** RESOURCE_EXHAUSTED: no more watches may be open of the tenant, or at this instance. */
export function tooManyWatches(of: "tenant" | "instance", maximum: number): ServiceError {
  const whose = of === "tenant" ? "the tenant has" : "this instance serves";
  const message = `${whose} ${maximum} watches, which is the most; end one, or share one among several readers`;
  return failure("TOO_MANY_WATCHES", message, { metadata: { maximum: String(maximum), of } });
}

/** RESOURCE_EXHAUSTED: a watcher has left a message waiting for so many milliseconds. */
export function watcherTooSlow(limitMs: number): ServiceError {
  const message = `the watcher took no message for ${limitMs} ms; resume with the last token received`;
  return failure("WATCHER_TOO_SLOW", message, { metadata: { limit_ms: String(limitMs) } });
}

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

function failure(
  reason: Reason,
  message: string,
  more: Pick<ServiceErrorInit, "metadata" | "violations">,
): ServiceError {
  return new ServiceError({ code: codes[reason], reason, message, ...more });
}

import type { ErrorReason } from "@licet/contracts/licet/metering/v1/error_reason_pb";
import { isPassingError } from "@licet/platform/database/connection";
import { platformError, ServiceError } from "@licet/platform/errors";

/** The reasons of this service's errors, as `proto/licet/metering/v1/error_reason.proto` documents them. */
type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

const SPOOL_FULL: Reason = "SPOOL_FULL";

/** How long, in milliseconds, a sender is asked to wait before it repeats what was not accepted. */
const RETRY_AFTER_MS = 1_000;

/** UNAVAILABLE: nothing durable could be reached. What was sent is counted or not; a repetition makes it count once. */
export function notAccepted(cause: unknown): ServiceError {
  const message = "the usage is not acknowledged: what must store it can't be reached; repeat it with the same ids";
  return platformError("DEPENDENCY_UNAVAILABLE", message, { retryAfterMs: RETRY_AFTER_MS, cause });
}

/** UNAVAILABLE: the event log can't be reached and no more may be spooled. */
export function spoolFull(cause: unknown): ServiceError {
  const message = "the usage is not acknowledged: too much waits for the event log; repeat it with the same ids";
  return new ServiceError({ code: "UNAVAILABLE", reason: SPOOL_FULL, message, retryAfterMs: RETRY_AFTER_MS, cause });
}

/** Whether an error says that the event log or the database can't be reached or can't work now. */
export function isOutage(error: unknown): boolean {
  return isPassingError(error) || (error instanceof ServiceError && error.reason === "DEPENDENCY_UNAVAILABLE");
}

import type { ErrorReason } from "@licet/contracts/licet/billing/v1/error_reason_pb";
import { type Code, platformError, ServiceError } from "@licet/platform/errors";

/** The reasons of this service's errors, as `proto/licet/billing/v1/error_reason.proto` documents them. */
export type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

// A reason of the contract without a code here does not compile.
const codes: Readonly<Record<Reason, Code>> = {
  MIXED_CURRENCIES: "FAILED_PRECONDITION",
  AMOUNT_TOO_LARGE: "FAILED_PRECONDITION",
};

/**
 * An error of this service, to be thrown.
 *
 * @param message - a sentence that names what was asked for and what would be right
 * @param metadata - facts for programs, as the contract documents them for the reason
 */
export function failure(
  reason: Reason,
  message: string,
  metadata: Readonly<Record<string, string>> = {},
): ServiceError {
  return new ServiceError({ code: codes[reason], reason, message, metadata });
}

/**
 * What to throw when asking another service failed. An unknown customer and the end of the call itself are the caller's
 * affair and passed on, and so is what is no answer but a fault of ours. All else that was answered to us is ours too, and
 * only the cause for the log.
 *
 * @param service - `licensing` or `usage-metering`
 */
export function askingFailed(service: string, cause: unknown): unknown {
  if (!(cause instanceof ServiceError)) return cause;
  const { code, reason } = cause;
  if (code === "CANCELLED" || code === "DEADLINE_EXCEEDED" || reason === "CUSTOMER_NOT_FOUND") return cause;
  const message = `the ${service} service can't be asked; try again`;
  return platformError("DEPENDENCY_UNAVAILABLE", message, { cause, retryAfterMs: 500 });
}

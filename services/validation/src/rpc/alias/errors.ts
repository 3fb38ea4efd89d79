import type { ErrorReason } from "@licet/contracts/licet/licensing/v1/error_reason_pb";
import { invalidArgument, platformError, ServiceError } from "@licet/platform/errors";

/**
 * What an alias throws when the service that does its work failed. What that service answered is the caller's affair, with
 * fields by the names that the caller knows; what is no answer of it, and faults of ours, are the cause, for the log.
 *
 * @param service - `licensing` or `usage-metering`
 * @param names - the names of fields here by those there, as in `event.occurred_at`
 */
export function forwardingFailed(
  service: string,
  cause: unknown,
  names: ReadonlyMap<string, string> = new Map(),
): unknown {
  if (!(cause instanceof ServiceError)) return cause;
  const { code, reason, retryAfterMs = 500 } = cause;
  if (code === "DEADLINE_EXCEEDED") {
    return platformError("DEADLINE_EXCEEDED", `the ${service} service did not answer in time`, { cause });
  }
  if (code === "INTERNAL" || code === "UNKNOWN") return new Error(`the ${service} service failed`, { cause });
  if (reason === "DEPENDENCY_UNAVAILABLE") {
    const message = `the ${service} service can't do this now; try again`;
    return platformError("DEPENDENCY_UNAVAILABLE", message, { cause, retryAfterMs });
  }
  const [violation] = cause.violations;
  const name = violation && names.get(violation.field);
  return name === undefined ? cause : invalidArgument(name, violation?.description ?? cause.message);
}

/** NOT_FOUND as licensing says it. */
export function licenseNotFound(customerId: string): ServiceError {
  const reason: keyof typeof ErrorReason = "LICENSE_NOT_FOUND";
  return new ServiceError({ code: "NOT_FOUND", reason, message: `Customer ${customerId} has no license.` });
}

/** UNIMPLEMENTED: an alias leads to usage metering, of which this instance was told nothing. */
export function meteringUnknown(method: string): ServiceError {
  const message = `${method} is not served here, as METERING_ADDRESS is not set; usage metering serves it by licet.metering.v1.UsageMeteringService`;
  return platformError("METHOD_UNKNOWN", message);
}

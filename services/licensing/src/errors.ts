import type { ErrorReason } from "@licet/contracts/licet/licensing/v1/error_reason_pb";
import { type Code, ServiceError } from "@licet/platform/errors";

/** The reasons of this service's errors, as `proto/licet/licensing/v1/error_reason.proto` documents them. */
export type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

// A reason of the contract without a code here does not compile.
const codes: Readonly<Record<Reason, Code>> = {
  TENANT_EXISTS: "ALREADY_EXISTS",
  API_KEY_NOT_FOUND: "NOT_FOUND",
  PRODUCT_EXISTS: "ALREADY_EXISTS",
  PRODUCT_NOT_FOUND: "NOT_FOUND",
  FEATURE_EXISTS: "ALREADY_EXISTS",
  FEATURE_NOT_FOUND: "NOT_FOUND",
  PLAN_EXISTS: "ALREADY_EXISTS",
  PLAN_NOT_FOUND: "NOT_FOUND",
  CUSTOMER_EXISTS: "ALREADY_EXISTS",
  CUSTOMER_NOT_FOUND: "NOT_FOUND",
  LICENSE_NOT_FOUND: "NOT_FOUND",
  LICENSE_EXISTS: "ALREADY_EXISTS",
  TRANSITION_NOT_ALLOWED: "FAILED_PRECONDITION",
  TOO_MANY_LICENSES: "FAILED_PRECONDITION",
  TOO_MANY_FEATURES: "FAILED_PRECONDITION",
  TOO_MANY_SUBSCRIPTIONS: "RESOURCE_EXHAUSTED",
  SUBSCRIBER_TOO_SLOW: "RESOURCE_EXHAUSTED",
  KEY_NOT_FOUND: "NOT_FOUND",
  PRODUCT_HAS_NO_KEYS: "FAILED_PRECONDITION",
  KEY_CANNOT_HOLD: "FAILED_PRECONDITION",
  KEY_NOT_IN_FORCE: "FAILED_PRECONDITION",
  TOO_MANY_KEYS: "FAILED_PRECONDITION",
  KEY_TOO_LARGE: "FAILED_PRECONDITION",
  SIGNING_KEY_NOT_FOUND: "NOT_FOUND",
  SIGNING_KEY_IN_USE: "FAILED_PRECONDITION",
  ETAG_MISMATCH: "ABORTED",
  LICENSE_WITHOUT_END: "FAILED_PRECONDITION",
  NOT_A_TRIAL: "FAILED_PRECONDITION",
  LICENSE_UNDER_KEY: "FAILED_PRECONDITION",
  KEY_STYLE_IN_USE: "FAILED_PRECONDITION",
  PLAN_RETIRED: "FAILED_PRECONDITION",
  PLAN_FOR_OTHER_CUSTOMER: "FAILED_PRECONDITION",
  ADD_ON_EXISTS: "ALREADY_EXISTS",
  ADD_ON_NOT_FOUND: "NOT_FOUND",
  ADD_ON_NOT_OFFERED: "FAILED_PRECONDITION",
  ADD_ON_RETIRED: "FAILED_PRECONDITION",
  GRANT_NOT_ALLOWED: "FAILED_PRECONDITION",
  TOO_MANY_GRANTS: "FAILED_PRECONDITION",
  GRANT_NOT_FOUND: "NOT_FOUND",
  FEATURE_IN_PLAN: "FAILED_PRECONDITION",
  IMPORT_EXISTS: "ALREADY_EXISTS",
  IMPORT_NOT_FOUND: "NOT_FOUND",
  IMPORT_OUT_OF_STEP: "FAILED_PRECONDITION",
  IMPORT_ENDED: "FAILED_PRECONDITION",
  TOO_MANY_BULK_RUNS: "RESOURCE_EXHAUSTED",
  BULK_OPERATION_NOT_FOUND: "NOT_FOUND",
  ROW_DIFFERS: "FAILED_PRECONDITION",
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

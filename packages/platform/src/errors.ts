import { create, type DescMessage, type Message } from "@bufbuild/protobuf";
import { anyPack, anyUnpack, durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { Code as GrpcCode } from "@licet/contracts/google/rpc/code_pb";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "@licet/contracts/google/rpc/error_details_pb";
import { type Status, StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import type { PlatformErrorReason } from "@licet/contracts/licet/type/v1/error_reason_pb";

/** A gRPC status code by its name; success is not an error. */
export type Code = Exclude<keyof typeof GrpcCode, "OK">;

/** The number that each code has on the wire. */
export const codeNumber: Readonly<Record<Code, number>> = GrpcCode;

/** `google.rpc.ErrorInfo.domain` of every error that Licet answers with. */
const ERROR_DOMAIN = "licet.dev";

/** The reasons that any RPC can answer with; published as `licet.type.v1.PlatformErrorReason`. */
export type PlatformReason = Exclude<keyof typeof PlatformErrorReason, "UNSPECIFIED">;

/** The code that goes with each of the platform's reasons. A reason added to the contract does not compile without one. */
const platformCode: Readonly<Record<PlatformReason, Code>> = {
  INVALID_FIELD: "INVALID_ARGUMENT",
  MALFORMED_MESSAGE: "INVALID_ARGUMENT",
  MESSAGE_TOO_LARGE: "INVALID_ARGUMENT",
  CREDENTIAL_MISSING: "UNAUTHENTICATED",
  CREDENTIAL_INVALID: "UNAUTHENTICATED",
  SCOPE_MISSING: "PERMISSION_DENIED",
  REQUEST_ID_REUSED: "INVALID_ARGUMENT",
  CONFLICT_RETRY: "ABORTED",
  OVERLOADED: "UNAVAILABLE",
  SHUTTING_DOWN: "UNAVAILABLE",
  DEPENDENCY_UNAVAILABLE: "UNAVAILABLE",
  DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
  CANCELLED: "CANCELLED",
  METHOD_UNKNOWN: "UNIMPLEMENTED",
  INTERNAL: "INTERNAL",
  RATE_LIMITED: "RESOURCE_EXHAUSTED",
};

/** The reason given to a status that carries none, because something foreign (a proxy, grpc-js) made it. */
const foreignReason: Readonly<Partial<Record<Code, PlatformReason>>> = {
  UNAVAILABLE: "DEPENDENCY_UNAVAILABLE",
  DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
  CANCELLED: "CANCELLED",
  UNIMPLEMENTED: "METHOD_UNKNOWN",
};

/** One field of a request that breaks a rule. */
export interface FieldViolation {
  /** The field's path in the request by its proto names, such as `events[3].quantity`; empty for a rule of the whole message. */
  field: string;
  /** What is wrong and what would be right. */
  description: string;
  /** The id of the broken rule, such as `string.min_len`. */
  reason?: string;
}

/** What a {@link ServiceError} is made of. */
export interface ServiceErrorInit {
  code: Code;
  /** What callers test: an UPPER_SNAKE_CASE name from a published `error_reason.proto`. */
  reason: string;
  /** A sentence for people. It reaches callers: no internals, no secrets. */
  message: string;
  /** Facts that belong to the reason, such as `{ required_scope: "licenses:write" }`. */
  metadata?: Readonly<Record<string, string>>;
  violations?: readonly FieldViolation[];
  /** After how many milliseconds another attempt makes sense. */
  retryAfterMs?: number;
  /** What led to it; logged, never sent. */
  cause?: unknown;
}

/**
 * The one error that crosses layers and the wire. Handlers throw it, the
 * transports turn it into a status with details, and clients rebuild it, so a
 * reason survives every hop.
 */
export class ServiceError extends Error {
  override readonly name = "ServiceError";
  readonly code: Code;
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;

  constructor(init: ServiceErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause });
    this.code = init.code;
    this.reason = init.reason;
    this.metadata = init.metadata ?? {};
    this.violations = init.violations ?? [];
    this.retryAfterMs = init.retryAfterMs;
  }
}

/** Makes an error with one of the platform's own reasons; the code follows from the reason. */
export function platformError(
  reason: PlatformReason,
  message: string,
  more: Omit<ServiceErrorInit, "code" | "reason" | "message"> = {},
): ServiceError {
  return new ServiceError({ code: platformCode[reason], reason, message, ...more });
}

/**
 * INVALID_ARGUMENT with the reason INVALID_FIELD for a rule that the contract
 * can't state.
 *
 * @param field the path by proto names, such as `events[3].occurred_at`.
 * @param description what is wrong and what would be right, such as `must not lie in the future`.
 * @param retryAfterMs after how many milliseconds the same will be right, where time mends it.
 */
export function invalidArgument(field: string, description: string, retryAfterMs?: number): ServiceError {
  const more = { violations: [{ field, description }], ...(retryAfterMs !== undefined && { retryAfterMs }) };
  return platformError("INVALID_FIELD", `${field}: ${description}`, more);
}

/** A message that tells more about an error, beside its type. */
export interface ErrorDetail {
  desc: DescMessage;
  value: Message;
}

/** What an error says beyond code and sentence: ErrorInfo always, BadRequest and RetryInfo when there is something for them. */
export function toDetails(error: ServiceError): ErrorDetail[] {
  const { reason, metadata, violations, retryAfterMs } = error;
  const info = create(ErrorInfoSchema, { reason, domain: ERROR_DOMAIN, metadata: { ...metadata } });
  const details: ErrorDetail[] = [{ desc: ErrorInfoSchema, value: info }];
  if (violations.length > 0) {
    const value = create(BadRequestSchema, { fieldViolations: [...violations] });
    details.push({ desc: BadRequestSchema, value });
  }
  if (retryAfterMs !== undefined) {
    const value = create(RetryInfoSchema, { retryDelay: durationFromMs(retryAfterMs) });
    details.push({ desc: RetryInfoSchema, value });
  }
  return details;
}

/** The status that says the same on the wire. */
export function toStatus(error: ServiceError): Status {
  const details = toDetails(error).map(({ desc, value }) => anyPack(desc, value));
  return create(StatusSchema, { code: codeNumber[error.code], message: error.message, details });
}

/**
 * The error that a status stands for; the inverse of {@link toStatus} except
 * for the cause, which stays where it happened. A status without ErrorInfo or
 * with an unknown code still becomes an error, with the closest reason.
 */
export function fromStatus(status: Pick<Status, "code" | "message" | "details">): ServiceError {
  const code = codeOf(status.code);
  let reason: string = foreignReason[code] ?? code;
  let metadata: Record<string, string> = {};
  let violations: FieldViolation[] = [];
  let retryAfterMs: number | undefined;
  for (const detail of status.details) {
    const info = anyUnpack(detail, ErrorInfoSchema);
    if (info !== undefined) ({ reason, metadata } = info);
    const bad = anyUnpack(detail, BadRequestSchema);
    if (bad !== undefined) violations = bad.fieldViolations.map(toViolation);
    const retry = anyUnpack(detail, RetryInfoSchema)?.retryDelay;
    if (retry !== undefined) retryAfterMs = durationMs(retry);
  }
  const init = { code, reason, message: status.message, metadata, violations };
  return new ServiceError(retryAfterMs === undefined ? init : { ...init, retryAfterMs });
}

function toViolation({ field, description, reason }: Required<FieldViolation>): FieldViolation {
  return reason === "" ? { field, description } : { field, description, reason };
}

function codeOf(number: number): Code {
  const name: string | undefined = GrpcCode[number];
  return name === undefined || name === "OK" ? "UNKNOWN" : (name as Code);
}

import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import type { StatusObject } from "@grpc/grpc-js";
import { Code } from "@licet/contracts/google/rpc/code_pb";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "@licet/contracts/google/rpc/error_details_pb";
import { type Status, StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import type { Verdict } from "./verdict.ts";

/** A gRPC status code by its name; success is not an error. */
export type ErrorCode = Exclude<keyof typeof Code, "OK">;

/** One field of a request that breaks a rule. */
export interface FieldViolation {
  /** The field's path, such as `context["users"]`. */
  readonly field: string;
  /** What is wrong and what would be right. */
  readonly description: string;
}

/** What a {@link LicetError} is made of. */
export interface LicetErrorInit {
  readonly code: ErrorCode;
  readonly reason: string;
  readonly message: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/** A question that could not be answered, or a call that failed. That a feature is denied is an answer, not an error. */
export class LicetError extends Error {
  override readonly name: string = "LicetError";
  /** The gRPC code: whether to try again (UNAVAILABLE), to mend the call (INVALID_ARGUMENT) or the key (UNAUTHENTICATED). */
  readonly code: ErrorCode;
  /** What programs test: an UPPER_SNAKE_CASE name of an `error_reason.proto`, or of docs/guides/sdk.md. */
  readonly reason: string;
  /** Facts that belong to the reason. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The fields that break a rule. */
  readonly violations: readonly FieldViolation[];
  /** After how many milliseconds another attempt makes sense, where the server said so. */
  readonly retryAfterMs: number | undefined;

  constructor(init: LicetErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause });
    this.code = init.code;
    this.reason = init.reason;
    this.metadata = init.metadata ?? {};
    this.violations = init.violations ?? [];
    this.retryAfterMs = init.retryAfterMs;
  }
}

/** What `require` throws: the feature is not allowed without reserve. */
export class LicetDenied extends Error {
  override readonly name = "LicetDenied";
  /** The answer, with its reason and sentences. */
  readonly verdict: Verdict;

  constructor(verdict: Verdict) {
    const why = verdict.violations.join(" ") || verdict.reason;
    super(`feature "${verdict.feature}" is not allowed to customer "${verdict.customerId}": ${why}`);
    this.verdict = verdict;
  }
}

/** An argument that can't be right, found before anything is sent. `field` is its path, `description` what would be right. */
export function invalidArgument(field: string, description: string): LicetError {
  return new LicetError({
    code: "INVALID_ARGUMENT",
    reason: "INVALID_FIELD",
    message: `${field}: ${description}`,
    violations: [{ field, description }],
  });
}

/** A call of a client that was closed. */
export function clientClosed(): LicetError {
  return new LicetError({ code: "CANCELLED", reason: "CLIENT_CLOSED", message: "the Licet client is closed" });
}

/** The trailer that carries a `google.rpc.Status` with its details. */
const DETAILS_KEY = "grpc-status-details-bin";

/** The reason given to a status that carries none, because something foreign (a proxy, grpc-js) made it. */
const foreignReason: Readonly<Partial<Record<ErrorCode, string>>> = {
  UNAVAILABLE: "DEPENDENCY_UNAVAILABLE",
  DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
  CANCELLED: "CANCELLED",
  UNIMPLEMENTED: "METHOD_UNKNOWN",
};

/** The error that grpc-js received, rebuilt from its details where the server sent some. */
export function fromGrpcStatus(status: Pick<StatusObject, "code" | "details" | "metadata">): LicetError {
  return fromStatus(detailed(status) ?? { code: status.code, message: status.details, details: [] });
}

/** The error that a `google.rpc.Status` stands for; without ErrorInfo it has the closest reason. */
export function fromStatus(status: Pick<Status, "code" | "message" | "details">): LicetError {
  const code = codeOf(status.code);
  let reason = foreignReason[code] ?? code;
  let metadata: Record<string, string> = {};
  let violations: FieldViolation[] = [];
  let retryAfterMs: number | undefined;
  for (const detail of status.details) {
    const info = anyUnpack(detail, ErrorInfoSchema);
    if (info !== undefined) ({ reason, metadata } = info);
    const bad = anyUnpack(detail, BadRequestSchema);
    if (bad !== undefined) violations = bad.fieldViolations.map(({ field, description }) => ({ field, description }));
    const retry = anyUnpack(detail, RetryInfoSchema)?.retryDelay;
    if (retry !== undefined) retryAfterMs = durationMs(retry);
  }
  return new LicetError({ code, reason, message: status.message, metadata, violations, retryAfterMs });
}

/** The details of a status; undefined when there are none or a foreign server sent something else under their name. */
function detailed({ metadata }: Pick<StatusObject, "metadata">): Status | undefined {
  const [bytes] = metadata.get(DETAILS_KEY);
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    return fromBinary(StatusSchema, bytes);
  } catch {
    return undefined;
  }
}

function codeOf(number: number): ErrorCode {
  const name: string | undefined = Code[number];
  return name === undefined || name === "OK" ? "UNKNOWN" : (name as ErrorCode);
}

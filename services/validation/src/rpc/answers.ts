import { create, toBinary } from "@bufbuild/protobuf";
import {
  AnswerSchema,
  type ValidateFeatureRequest,
  ValidateFeatureRequestSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { ServiceError, toStatus } from "@licet/platform/errors";
import type { Call } from "@licet/platform/rpc/call";
import type { MessageRules } from "@licet/platform/rpc/message-rules";
import type { Context } from "../context.ts";
import type { HotPath } from "./hot-path.ts";
import type { Piece } from "./prepared.ts";
import { validateFeature } from "./validate-feature.ts";

/** What the RPCs that take many questions need beside the context. */
export interface Answering extends Context {
  readonly hotPath: HotPath;
  /** The rules of the contracts. A question among many is judged by itself, so that one breaks no other. */
  readonly rules: MessageRules;
}

/** Codes: what the rules say of them, looked at in the form in which nearly all are right. */
const customerPattern = /^[ -~]{1,255}$/;
const featurePattern = /^[a-z0-9][a-z0-9_.-]{0,62}$/;

/**
 * Answers a question among many as ValidateFeature would: at once where the hot path can.
 *
 * @param index its place among the questions of its message, for the paths of fields.
 * @returns a promise, which rejects with what is no ServiceError only.
 */
export function answerOne(
  ctx: Answering,
  call: Call,
  question: ValidateFeatureRequest,
  index: number,
): Piece | Promise<Piece> {
  const plain = customerPattern.test(question.customerId) && featurePattern.test(question.feature);
  const reply = plain ? ctx.hotPath.answer(call.tenant, question) : undefined;
  return reply ?? answerFully(ctx, call, question, index);
}

async function answerFully(
  ctx: Answering,
  call: Call,
  question: ValidateFeatureRequest,
  index: number,
): Promise<Uint8Array> {
  try {
    ctx.rules.check(ValidateFeatureRequestSchema, question);
    const response = await validateFeature(ctx, call, question);
    return toBinary(AnswerSchema, create(AnswerSchema, { result: { case: "response", value: response } }));
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const value = toStatus(placed(error, `questions[${index}]`));
    return toBinary(AnswerSchema, create(AnswerSchema, { result: { case: "error", value } }));
  }
}

/** The error with the paths of its fields below `path`. */
function placed(error: ServiceError, path: string): ServiceError {
  const { code, reason, message, metadata, retryAfterMs, violations } = error;
  if (violations.length === 0) return error;
  const below = violations.map((violation) => ({
    ...violation,
    field: violation.field === "" ? path : `${path}.${violation.field}`,
  }));
  return new ServiceError({
    code,
    reason,
    message: `${path}: ${message}`,
    metadata,
    violations: below,
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  });
}

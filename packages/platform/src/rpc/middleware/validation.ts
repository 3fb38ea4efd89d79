import type { DescMessage, Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { RuntimeError, type Validator, type Violation } from "@bufbuild/protovalidate";
import { type FieldViolation, invalidArgument, platformError } from "../../errors.ts";
import { unlessAborted } from "../abort.ts";
import type { Middleware, ServerCall } from "../call.ts";
import { clip } from "../codec.ts";
import { isWellFormed, malformedField } from "./well-formed.ts";

/** How many violations an answer names: with their texts clipped, the status stays below the 8 KiB of headers that Java clients take. */
const MAX_VIOLATIONS = 8;

/**
 * Decodes the request and refuses one that breaks a rule of the contract,
 * naming each field by its proto path. Requests of a stream are checked one by
 * one as the handler takes them.
 */
export function validation(validator: Validator): Middleware {
  return async (call, next) => {
    const { methodKind, input } = call.method;
    const check = (request: Message) => validate(validator, input, request);
    if (methodKind === "unary" || methodKind === "server_streaming") {
      const request = (await call.exchange.receive()) as Message;
      check(request);
      call.input = request;
    } else {
      call.input = checked(call, check);
    }
    await next();
  };
}

async function* checked(call: ServerCall, check: (request: Message) => void): AsyncGenerator<Message> {
  const requests = (call.exchange.receive() as AsyncIterable<Message>)[Symbol.asyncIterator]();
  for (;;) {
    const next = await unlessAborted(call.signal, requests.next());
    if (next.done) return;
    check(next.value);
    yield next.value;
  }
}

function validate(validator: Validator, schema: DescMessage, request: Message): void {
  if (!isWellFormed(request)) {
    const { field, description } = malformedField(schema, request);
    throw invalidArgument(clip(field), description);
  }
  const result = validator.validate(schema, request);
  if (result.kind === "valid") return;
  if (result.kind === "error") throw unanswered(result.error);
  const violations = result.violations.slice(0, MAX_VIOLATIONS).map(toFieldViolation);
  const sentences = violations.map(({ field, description }) =>
    field === "" ? description : `${field}: ${description}`,
  );
  throw platformError("INVALID_FIELD", sentences.join("; "), { violations });
}

/** The error when a rule could not be judged, which names no field: with a value that its expression fails on, the caller is wrong. */
function unanswered(error: Error): Error {
  if (!(error instanceof RuntimeError)) return error;
  const description = `a rule can't be judged for the values of this request: ${clip(error.message)}`;
  return platformError("INVALID_FIELD", description, { violations: [{ field: "", description }], cause: error });
}

function toFieldViolation({ field, message, ruleId }: Violation): FieldViolation {
  return { field: clip(pathToString(field)), description: clip(message), reason: ruleId };
}

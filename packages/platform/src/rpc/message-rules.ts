import { create, type DescMessage, type Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, RuntimeError, type Violation } from "@bufbuild/protovalidate";
import { type FieldViolation, invalidArgument, platformError } from "../errors.ts";
import { clip } from "./codec.ts";
import { isWellFormed, malformedField } from "./middleware/well-formed.ts";

/** How many violations an answer names: with their texts clipped, the status stays below the 8 KiB of headers that Java clients take. */
const MAX_VIOLATIONS = 8;

/** The rules that the contracts state about messages. */
export interface MessageRules {
  /**
   * Refuses a message that breaks a rule of its contract, or holds text that can't be stored.
   *
   * @throws {ServiceError} INVALID_FIELD with a violation for each field.
   */
  check(schema: DescMessage, message: Message): void;
  /** Compiles the rules of a message type, which takes milliseconds; its first check does it otherwise. */
  prepare(schema: DescMessage): void;
}

/** Creates the rules of all contracts. */
export function createMessageRules(): MessageRules {
  const validator = createValidator();
  return {
    check(schema, message) {
      if (!isWellFormed(message)) {
        const { field, description } = malformedField(schema, message);
        throw invalidArgument(clip(field), description);
      }
      const result = validator.validate(schema, message);
      if (result.kind === "valid") return;
      if (result.kind === "error") throw unanswered(result.error);
      const violations = result.violations.slice(0, MAX_VIOLATIONS).map(toFieldViolation);
      const sentences = violations.map(({ field, description }) =>
        field === "" ? description : `${field}: ${description}`,
      );
      throw platformError("INVALID_FIELD", sentences.join("; "), { violations });
    },
    prepare(schema) {
      validator.validate(schema, create(schema));
    },
  };
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

import { create, type DescMessage, type Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, RuntimeError, type Violation } from "@bufbuild/protovalidate";
import { type FieldViolation, invalidArgument, platformError } from "../errors.ts";
import { clip, refused } from "./codec.ts";
import { findCrowded, isIgnored } from "./crowding.ts";
import { isWellFormed, malformedField } from "./middleware/well-formed.ts";

/** How many violations an answer names: with their texts clipped, the status stays below the 8 KiB of headers that Java clients take. */
const MAX_VIOLATIONS = 8;

/** The rules that the contracts state about messages. */
export interface MessageRules {
  /**
   * Refuses a message that breaks a rule of its contract, or holds text that can't be stored. The items of a list that
   * the contract says are to be ignored are judged by nobody here: their handler does it, one by one.
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
  const ignored = new Map<DescMessage, ReadonlySet<string>>();
  const ignoredOf = (schema: DescMessage): ReadonlySet<string> => {
    const known = ignored.get(schema) ?? ignoredLists(schema);
    ignored.set(schema, known);
    return known;
  };
  return {
    check(schema, message) {
      const crowded = findCrowded(schema, message);
      if (crowded !== undefined) throw refused([crowded]);
      if (!isWellFormed(message, ignoredOf(schema))) {
        const { field, description } = malformedField(schema, message);
        throw invalidArgument(clip(field), description);
      }
      const result = validator.validate(schema, message);
      if (result.kind === "valid") return;
      if (result.kind === "error") throw unanswered(result.error);
      throw refused(result.violations.slice(0, MAX_VIOLATIONS).map(toFieldViolation));
    },
    prepare(schema) {
      validator.validate(schema, create(schema));
    },
  };
}

/** The lists of a message, by their properties, of which the contract says that their items are to be ignored. */
function ignoredLists({ fields }: DescMessage): ReadonlySet<string> {
  return new Set(fields.filter(isIgnored).map(({ localName }) => localName));
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

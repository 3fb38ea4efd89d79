import { create } from "@bufbuild/protobuf";
import { anyIs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "@jest/globals";
import { ErrorInfoSchema } from "@licet/contracts/google/rpc/error_details_pb";
import { StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import { type Code, codeNumber, fromStatus, invalidArgument, platformError, ServiceError, toStatus } from "./errors.ts";

describe("an error on the wire", () => {
  test("keeps all but its cause", () => {
    const sent = new ServiceError({
      code: "FAILED_PRECONDITION",
      reason: "NOT_NOW",
      message: "not now",
      metadata: { since: "yesterday" },
      violations: [
        { field: "a.b[2]", description: "must be x", reason: "x.rule" },
        { field: "c", description: "gone" },
      ],
      retryAfterMs: 1_500,
      cause: new Error("secret"),
    });
    const received = fromStatus(toStatus(sent));
    expect({ ...received, message: received.message }).toEqual({ ...sent, message: sent.message });
    expect(received.cause).toBeUndefined();
  });

  test.each(Object.keys(codeNumber).filter((name) => Number.isNaN(Number(name)) && name !== "OK"))(
    "keeps the code %s",
    (name) => {
      const error = new ServiceError({ code: name as Code, reason: "ANY", message: "" });
      expect(fromStatus(toStatus(error)).code).toBe(name);
    },
  );

  test("carries ErrorInfo only when there is nothing else to say", () => {
    const { details } = toStatus(platformError("INTERNAL", "internal error"));
    expect(details).toHaveLength(1);
    expect(details.every((detail) => anyIs(detail, ErrorInfoSchema))).toBe(true);
  });
});

describe("a status that something foreign made", () => {
  test.each([
    [14, "UNAVAILABLE", "DEPENDENCY_UNAVAILABLE"],
    [4, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"],
    [8, "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"],
    [0, "UNKNOWN", "UNKNOWN"],
    [99, "UNKNOWN", "UNKNOWN"],
  ])("code %d becomes %s with the reason %s", (code, name, reason) => {
    const error = fromStatus(create(StatusSchema, { code, message: "m" }));
    expect(error).toMatchObject({ code: name, reason, message: "m" });
  });
});

test("invalidArgument names the field in the sentence and as a violation", () => {
  expect(invalidArgument("events[3].quantity", "must not be negative")).toMatchObject({
    code: "INVALID_ARGUMENT",
    reason: "INVALID_FIELD",
    message: "events[3].quantity: must not be negative",
    violations: [{ field: "events[3].quantity", description: "must not be negative" }],
  });
});

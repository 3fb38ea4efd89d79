import { create, type DescMessage, type Message } from "@bufbuild/protobuf";
import { DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "@jest/globals";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "@licet/contracts/google/rpc/error_details_pb";
import { ServerReflectionRequestSchema } from "@licet/contracts/grpc/reflection/v1/reflection_pb";
import { EchoRequestSchema } from "../../testing/echo-service.ts";
import { isWellFormed, malformedField } from "./well-formed.ts";

const badRequest = (description: string) =>
  create(BadRequestSchema, { fieldViolations: [{ field: "a" }, { field: "b", description }] });

const cases: [string, DescMessage, Message, string | undefined][] = [
  ["a field", ErrorInfoSchema, create(ErrorInfoSchema, { reason: "a\0b" }), "reason"],
  [
    "a value of a map",
    ErrorInfoSchema,
    create(ErrorInfoSchema, { metadata: { ok: "", bad: "\0" } }),
    'metadata["bad"]',
  ],
  ["a key of a map", ErrorInfoSchema, create(ErrorInfoSchema, { metadata: { "k\0": "" } }), 'metadata["k\\u0000"]'],
  ["a message in a list", BadRequestSchema, badRequest("\0"), "field_violations[1].description"],
  [
    "a oneof",
    ServerReflectionRequestSchema,
    create(ServerReflectionRequestSchema, { messageRequest: { case: "fileByFilename", value: "\0" } }),
    "file_by_filename",
  ],
  ["nothing", BadRequestSchema, badRequest("plain"), undefined],
];

test.each(cases)("finds U+0000 in %s", (_where, schema, message, path) => {
  expect(isWellFormed(message)).toBe(path === undefined);
  if (path === undefined) return;
  const { field, description } = malformedField(schema, message);
  expect(field).toBe(path);
  expect(description).toContain("U+0000");
});

describe("a time out of its range", () => {
  const minTimestamp = -62_135_596_800n;
  const maxTimestamp = 253_402_300_799n;
  test.each([
    [minTimestamp, 0, true],
    [minTimestamp - 1n, 0, false],
    [maxTimestamp, 999_999_999, true],
    [maxTimestamp + 1n, 0, false],
    [0n, -1, false],
    [0n, 1_000_000_000, false],
  ])("Timestamp of %p s and %p ns", (seconds, nanos, expected) => {
    const request = create(EchoRequestSchema, { at: create(TimestampSchema, { seconds, nanos }) });
    expect(isWellFormed(request)).toBe(expected);
    if (expected) return;
    const description = expect.stringContaining("years 0001 to 9999");
    expect(malformedField(EchoRequestSchema, request)).toEqual({ field: "at", description });
  });

  test.each([
    [315_576_000_000n, 999_999_999, true],
    [315_576_000_001n, 0, false],
    [-315_576_000_000n, -999_999_999, true],
    [-315_576_000_001n, 0, false],
    [1n, -1, false],
    [-1n, 1, false],
    [0n, -1, true],
    [0n, 1_000_000_000, false],
  ])("Duration of %p s and %p ns", (seconds, nanos, expected) => {
    const message = create(RetryInfoSchema, { retryDelay: create(DurationSchema, { seconds, nanos }) });
    expect(isWellFormed(message)).toBe(expected);
    if (expected) return;
    const description = expect.stringContaining("315,576,000,000 s");
    expect(malformedField(RetryInfoSchema, message)).toEqual({ field: "retry_delay", description });
  });

  test("is found in a list of messages", () => {
    const at = create(TimestampSchema, { nanos: -1 });
    const request = create(EchoRequestSchema, { parts: [{}, { at }] });
    expect(malformedField(EchoRequestSchema, request).field).toBe("parts[1].at");
  });

  test("is not seen in a map whose keys are named alike", () => {
    const metadata = { $typeName: "google.protobuf.Timestamp", seconds: "1", nanos: "-1" };
    expect(isWellFormed(create(ErrorInfoSchema, { metadata }))).toBe(true);
  });
});

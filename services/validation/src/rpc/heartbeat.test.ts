import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "@jest/globals";
import { WatchEntitlementsResponseSchema } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import fc from "fast-check";
import { decodeResumeToken, resumeTokensOf } from "../watch/resume-token.ts";
import type { Heartbeat } from "../watch/telling.ts";
import { encodeHeartbeat } from "./heartbeat.ts";

const kinds = ["synchronized", "heartbeat"] as const;
/** Whole seconds and the beginning of time are written without one of the fields, or without both. */
const timesMs = fc.oneof(
  fc.integer({ min: 0, max: 253_402_300_799_999 }),
  fc.integer({ min: 0, max: 253_402_300_799 }).map((seconds) => seconds * 1_000),
  fc.integer({ min: 0, max: 999 }),
);
const maybe = fc.option(timesMs, { nil: undefined });
const scope = { tenant: "tradsys", customerIds: ["cairo-capital"] };

function byGeneratedCode({ kind, resumeToken, beat }: Heartbeat, sentAtMs: number | undefined) {
  const value = {
    factsAsOf: timestampFromMs(beat.factsAsOfMs),
    sentAt: timestampFromMs(beat.sentAtMs),
    usageAsOf: beat.usageAsOfMs === undefined ? undefined : timestampFromMs(beat.usageAsOfMs),
  };
  const sentAt = sentAtMs === undefined ? undefined : timestampFromMs(sentAtMs);
  const message = create(WatchEntitlementsResponseSchema, { resumeToken, sentAt, content: { case: kind, value } });
  return Buffer.from(toBinary(WatchEntitlementsResponseSchema, message));
}

test("a heartbeat has the bytes that the generated code writes", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...kinds),
      fc.oneof(fc.constant(""), fc.stringMatching(/^[\w-]{1,127}$/)),
      fc.record({ factsAsOfMs: timesMs, sentAtMs: timesMs, usageAsOfMs: maybe }),
      maybe,
      (kind, resumeToken, beat, sentAtMs) => {
        const heartbeat = { kind, resumeToken, beat };
        expect(encodeHeartbeat(heartbeat, sentAtMs)).toEqual(byGeneratedCode(heartbeat, sentAtMs));
      },
    ),
    { numRuns: 2_000 },
  );
});

test("takes the longest token that there is, and none whose length it can't write", () => {
  const longest = 10 ** 15 - 1;
  const resumeToken = resumeTokensOf(scope)({ asOfMs: longest, usageAsOfMs: longest });
  expect(decodeResumeToken(resumeToken, scope)).toEqual({ asOfMs: longest, usageAsOfMs: longest });
  const heartbeat: Heartbeat = {
    kind: "heartbeat",
    resumeToken,
    beat: { factsAsOfMs: 1, sentAtMs: 2, usageAsOfMs: 3 },
  };
  expect(encodeHeartbeat(heartbeat, undefined)).toEqual(byGeneratedCode(heartbeat, undefined));
  const tooLong = { ...heartbeat, resumeToken: "x".repeat(128) };
  expect(() => encodeHeartbeat(tooLong, undefined)).toThrow("128 characters");
});

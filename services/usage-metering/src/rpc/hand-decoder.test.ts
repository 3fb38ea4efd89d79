import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { expect, test } from "@jest/globals";
import { TrackUsageRequestSchema } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import { decodeTrackUsage } from "./hand-decoder.ts";

// That what it takes is right shows in tests/fuzz/differential.test.ts; here is what chance rarely makes.

const fields = { id: "e-1", customerId: "cairo-capital", metric: "api_calls", quantity: "1" };
const untimed = toBinary(UsageEventSchema, create(UsageEventSchema, fields));
const event = toBinary(
  UsageEventSchema,
  create(UsageEventSchema, { ...fields, occurredAt: { seconds: 1_900_000_000n, nanos: 5 } }),
);

const field = (number: number, value: Uint8Array) =>
  new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(value).finish();
const request = (...parts: readonly Uint8Array[]) => field(1, Buffer.concat(parts));
const seconds = Buffer.from([0x08, 0x01]);

test("takes an event as clients write it", () => {
  const bytes = request(event);
  expect(decodeTrackUsage(bytes)).toEqual(fromBinary(TrackUsageRequestSchema, bytes));
});

test.each([
  ["a message twice, of which the parts belong together", request(event, field(10, seconds))],
  ["a text twice, of which one is no UTF-8", request(field(1, Buffer.from([0xff])), event)],
  ["a number that goes on behind its field", request(field(10, Buffer.from([0x08, 0x80])), untimed)],
  ["an event that is cut off", request(field(2, Buffer.alloc(9, "x")), event).subarray(0, -1)],
  ["an event in two parts", Buffer.concat([request(event), request(event)])],
  ["a length in more bytes than it needs", Buffer.concat([Buffer.from([0x0a, 0x80 | event.length, 0]), event])],
  ["no event", Buffer.alloc(0)],
])("leaves %s to the generated code", (_what, bytes) => {
  expect(decodeTrackUsage(bytes)).toBeUndefined();
});

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "@jest/globals";
import {
  type TrackUsageBatchRequest,
  TrackUsageBatchRequestSchema,
} from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import fc from "fast-check";
import { type Batch, createEncoder, FULL_BATCH_BYTES, halve, MAX_BATCH_EVENTS } from "./encode.ts";
import { type PendingEvent, toPending, type UsageEvent } from "./usage-event.ts";

const code = fc.stringMatching(/^[a-z0-9][a-z0-9_.-]{0,62}$/);
const text = (minLength: number, maxLength: number) =>
  fc.oneof(
    fc.string({ minLength, maxLength }),
    fc.string({ unit: "grapheme-ascii", minLength, maxLength }),
    fc.string({ unit: "binary", minLength, maxLength }),
  );
const dimensions = fc
  .array(fc.tuple(text(1, 64), text(0, 256)), { maxLength: 20 })
  // A map of protobuf keeps integer-like keys in front, and knows no __proto__.
  .map((pairs) => Object.fromEntries(pairs.filter(([name]) => !/^\d+$/.test(name) && name !== "__proto__")));
const usage: fc.Arbitrary<UsageEvent> = fc.record(
  {
    customerId: text(1, 255),
    metric: code,
    quantity: fc.oneof(fc.nat(), fc.bigInt({ min: 0n, max: 10n ** 18n - 1n }), fc.constantFrom("0.25", "7.000000001")),
    feature: code,
    action: text(0, 64),
    licenseId: fc.uuid(),
    dimensions,
    id: text(1, 255),
    occurredAt: fc.date({ noInvalidDate: true, min: new Date("0001-01-02Z"), max: new Date("9999-01-01Z") }),
  },
  { requiredKeys: ["customerId", "metric"] },
);

function batchOf(events: readonly PendingEvent[], source: string): Batch {
  const queue = [...events];
  return createEncoder(source, "run").encode(() => queue.shift());
}

function reference(events: readonly PendingEvent[], source: string): TrackUsageBatchRequest {
  return create(TrackUsageBatchRequestSchema, {
    events: events.map(({ sequence, id, dimensions: pairs, occurredAtMs, ...rest }) => {
      const entries = pairs.flatMap((name, index) =>
        index % 2 === 0 ? [[name, pairs[index + 1] ?? ""] as const] : [],
      );
      return create(UsageEventSchema, {
        ...rest,
        source,
        id: id ?? `run-${sequence.toString(36)}`,
        dimensions: Object.fromEntries(entries),
        occurredAt: timestampFromMs(occurredAtMs),
      });
    }),
  });
}

test("events have the bytes that the generated code writes", () => {
  fc.assert(
    fc.property(fc.array(usage, { maxLength: 20 }), text(0, 255), fc.nat(), (events, source, nowMs) => {
      const pending = events.map((event, index) => toPending(event, index + 1, nowMs));
      const { body, count } = batchOf(pending, source);
      expect(count).toBe(events.length);
      expect(body.equals(toBinary(TrackUsageBatchRequestSchema, reference(pending, source)))).toBe(true);
    }),
    { numRuns: 300 },
  );
});

test("halves are whole events, in order", () => {
  fc.assert(
    fc.property(fc.array(usage, { minLength: 2, maxLength: 9 }), (events) => {
      const batch = batchOf(
        events.map((event, index) => toPending(event, index + 1, 0)),
        "sdk",
      );
      const halves = halve(batch);
      const read = (of: Batch) => fromBinary(TrackUsageBatchRequestSchema, of.body).events;
      expect(halves.map(({ count }) => count)).toEqual(halves.map((half) => read(half).length));
      expect(halves.flatMap(read)).toEqual(read(batch));
    }),
    { numRuns: 100 },
  );
});

test("a batch of the largest events there are stays below what a request may have", () => {
  const wide = (length: number) => "\u{1F4C8}".repeat(length);
  const largest = toPending(
    {
      customerId: wide(255),
      metric: "m".repeat(63),
      quantity: "123456789012345678.123456789",
      feature: "f".repeat(63),
      action: wide(64),
      licenseId: "01930000-0000-7000-8000-000000000001",
      dimensions: Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`${wide(62)}${i + 10}`, wide(256)])),
      id: wide(255),
    },
    1,
    Date.now(),
  );
  const { body, count } = createEncoder(wide(255), "run").encode(() => largest);
  expect(count).toBeGreaterThan(30);
  expect(body.length).toBeGreaterThanOrEqual(FULL_BATCH_BYTES);
  expect(body.length).toBeLessThan(1024 * 1024);

  const small = toPending({ customerId: "nile", metric: "orders" }, 1, 0);
  expect(createEncoder("sdk", "run").encode(() => small).count).toBe(MAX_BATCH_EVENTS);
});

test.each<[string, Partial<Record<keyof UsageEvent, unknown>>]>([
  ["customerId", { customerId: "" }],
  ["customerId", { customerId: undefined }],
  ["customerId", { customerId: "x".repeat(256) }],
  ["metric", { metric: "API calls" }],
  ["metric", { metric: "" }],
  ["quantity", { quantity: -1 }],
  ["quantity", { quantity: 0.1 + 0.2 }],
  ["quantity", { quantity: Number.NaN }],
  ["quantity", { quantity: "1e3" }],
  ["feature", { feature: "Egx" }],
  ["action", { action: "a".repeat(65) }],
  ["licenseId", { licenseId: "7" }],
  ["id", { id: "" }],
  ["occurredAt", { occurredAt: new Date("never") }],
  ["dimensions", { dimensions: Object.fromEntries(Array.from({ length: 21 }, (_, i) => [`d${i}`, ""])) }],
  ['dimensions["venue"]', { dimensions: { venue: 7 } }],
])("an event with a wrong %s is refused, naming it", (field, wrong) => {
  // As JavaScript may call it: what the types forbid has to be found as well.
  const event = { customerId: "nile", metric: "orders", ...wrong } as UsageEvent;
  expect(() => toPending(event, 1, 0)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", violations: [expect.objectContaining({ field })] }),
  );
});

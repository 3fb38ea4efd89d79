import { describe, expect, test } from "@jest/globals";
import type { ServiceError } from "@licet/platform/errors";
import fc from "fast-check";
import { occurrence, payloadOf, type UsageEvent } from "./event.ts";

const now = new Date("2026-11-22T10:00:00.000Z");

describe("occurrence", () => {
  test("is now when the sender says nothing", () => {
    expect(occurrence("event.occurred_at", undefined, now)).toEqual(now);
  });

  test.each([
    ["60 seconds ahead", "2026-11-22T10:01:00.000Z", true],
    ["a millisecond more", "2026-11-22T10:01:00.001Z", false],
    ["three years back", "2023-11-22T10:00:00.000Z", true],
    ["a millisecond more", "2023-11-22T09:59:59.999Z", false],
  ])("%s", (_what, text, accepted) => {
    const said = new Date(text);
    if (accepted) expect(occurrence("event.occurred_at", said, now)).toEqual(said);
    else expect(() => occurrence("event.occurred_at", said, now)).toThrow(/^event\.occurred_at: must not/);
  });

  test("a time ahead comes with how long it takes until it is accepted; one that is too old never will be", () => {
    const refusal = (said: Date, at: Date) => {
      try {
        return occurrence("event.occurred_at", said, at);
      } catch (error) {
        return (error as ServiceError).retryAfterMs;
      }
    };
    fc.assert(
      fc.property(fc.integer({ min: 60_001, max: 2 ** 40 }), (aheadMs) => {
        const said = new Date(now.getTime() + aheadMs);
        const waitMs = Number(refusal(said, now));
        expect(refusal(said, new Date(now.getTime() + waitMs - 1))).toBe(1);
        expect(refusal(said, new Date(now.getTime() + waitMs))).toEqual(said);
      }),
    );
    expect(refusal(new Date(0), now)).toBeUndefined();
  });

  test("no time at all is refused", () => {
    expect(() => occurrence("events[3].occurred_at", new Date(Number.NaN), now)).toThrow("events[3].occurred_at");
  });
});

describe("payloadOf", () => {
  const event: UsageEvent = {
    tenant: "t",
    source: "s",
    id: "i",
    customerId: "c",
    licenseId: "l",
    metric: "m",
    feature: "f",
    action: "a",
    quantity: "1.5",
    dimensions: { region: "eu", zone: "1" },
    occurredAt: new Date("2026-11-20T00:00:00.000Z"),
    acceptedAt: now,
    actor: "key",
  };

  test.each<[string, Partial<UsageEvent>]>([
    ["the quantity is written differently", { quantity: "1.500" }],
    ["the dimensions come in another order", { dimensions: { zone: "1", region: "eu" } }],
    ["it is accepted later, from another credential", { acceptedAt: new Date(now.getTime() + 5), actor: "other" }],
    ["it is the key that differs", { tenant: "x", source: "x", id: "x" }],
  ])("is the same when %s", (_what, change) => {
    expect(payloadOf({ ...event, ...change })).toBe(payloadOf(event));
  });

  test("ignores a time of occurrence that is ours", () => {
    const later = new Date(now.getTime() + 5_000);
    const first = payloadOf({ ...event, occurredAt: now, acceptedAt: now });
    expect(payloadOf({ ...event, occurredAt: later, acceptedAt: later })).toBe(first);
    expect(first).not.toBe(payloadOf(event));
  });

  test("differs in everything else that the sender says", () => {
    const changes: Partial<UsageEvent>[] = [
      { customerId: "x" },
      { licenseId: "x" },
      { metric: "x" },
      { feature: "x" },
      { action: "x" },
      { quantity: "1.51" },
      { dimensions: { region: "eu" } },
      { occurredAt: new Date("2026-11-20T00:00:00.001Z") },
    ];
    const payloads = changes.map((change) => payloadOf({ ...event, ...change }));
    expect(new Set([...payloads, payloadOf(event)]).size).toBe(changes.length + 1);
  });

  test("can't be forged by moving text between fields", () => {
    const text = fc.string({ maxLength: 4 });
    fc.assert(
      fc.property(fc.tuple(text, text, text), fc.tuple(text, text, text), (one, other) => {
        const of = ([customerId, metric, action]: typeof one) => payloadOf({ ...event, customerId, metric, action });
        return (of(one) === of(other)) === (JSON.stringify(one) === JSON.stringify(other));
      }),
    );
  });
});

import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { type DecidedStatus, graceUntil, statusAt } from "./license.ts";
import { checkTransition, transitions } from "./transitions.ts";

const at = (text: string) => new Date(text);
const license = {
  decidedStatus: "active" as DecidedStatus,
  validFrom: at("2026-01-10T00:00:00Z"),
  validUntil: at("2026-02-10T00:00:00Z"),
  graceDays: 7,
};

describe("statusAt", () => {
  test.each([
    ["a millisecond before it begins", "2026-01-09T23:59:59.999Z", "pending"],
    ["at its beginning", "2026-01-10T00:00:00Z", "active"],
    ["a millisecond before its end", "2026-02-09T23:59:59.999Z", "active"],
    ["at its end, which is excluded", "2026-02-10T00:00:00Z", "grace"],
    ["a millisecond before its grace ends", "2026-02-16T23:59:59.999Z", "grace"],
    ["when its grace has ended", "2026-02-17T00:00:00Z", "expired"],
  ])("%s", (_when, now, status) => {
    expect(statusAt(license, at(now))).toBe(status);
  });

  test("without grace a license expires at its end", () => {
    expect(statusAt({ ...license, graceDays: 0 }, license.validUntil)).toBe("expired");
  });

  test("a past-due license follows the clock like an active one", () => {
    const pastDue = { ...license, decidedStatus: "past_due" as const };
    expect(statusAt(pastDue, at("2026-01-20T00:00:00Z"))).toBe("past_due");
    expect(statusAt(pastDue, at("2026-02-12T00:00:00Z"))).toBe("grace");
  });

  const dates = fc.date({ min: at("2000-01-01T00:00:00Z"), max: at("2100-01-01T00:00:00Z"), noInvalidDate: true });

  test("what somebody decided outlasts the clock, and a license without end never ends", () => {
    fc.assert(
      fc.property(
        dates,
        dates,
        fc.constantFrom("suspended", "cancelled", "revoked"),
        (validFrom, now, decidedStatus) => {
          expect(statusAt({ decidedStatus, validFrom, graceDays: 0 }, now)).toBe(decidedStatus);
          const endless = statusAt({ decidedStatus: "active", validFrom, graceDays: 0 }, now);
          expect(endless).toBe(now < validFrom ? "pending" : "active");
        },
      ),
    );
  });

  test("time only leads from pending over active and grace to expired", () => {
    const order = ["pending", "active", "grace", "expired"];
    fc.assert(
      fc.property(dates, fc.nat(1_000), fc.nat(30), dates, dates, (validFrom, days, graceDays, a, b) => {
        const validUntil = new Date(validFrom.getTime() + (days + 1) * 86_400_000);
        const one = { decidedStatus: "active" as const, validFrom, validUntil, graceDays };
        const [earlier, later] = a <= b ? [a, b] : [b, a];
        expect(order.indexOf(statusAt(one, earlier))).toBeLessThanOrEqual(order.indexOf(statusAt(one, later)));
      }),
    );
  });
});

test("grace is counted in spans of 24 hours from the end", () => {
  expect(graceUntil(license)).toEqual(at("2026-02-17T00:00:00Z"));
  expect(graceUntil({ graceDays: 7 })).toBeUndefined();
});

describe("the transition table", () => {
  test("is the one of product.md", () => {
    expect(transitions).toEqual({
      pending: ["active", "cancelled", "revoked"],
      active: ["past_due", "grace", "suspended", "expired", "cancelled", "revoked"],
      past_due: ["active", "grace", "suspended", "cancelled", "revoked"],
      grace: ["active", "expired", "suspended", "cancelled", "revoked"],
      suspended: ["active", "expired", "cancelled", "revoked"],
      expired: ["active", "cancelled", "revoked"],
      cancelled: [],
      revoked: [],
    });
  });

  test("a refusal names from, to and what is allowed", () => {
    expect(() => checkTransition("l1", "active", "suspended")).not.toThrow();
    expect(() => checkTransition("l1", "pending", "suspended")).toThrow(
      expect.objectContaining({
        code: "FAILED_PRECONDITION",
        reason: "TRANSITION_NOT_ALLOWED",
        message: "License l1 is pending and can only become active, cancelled, revoked, not suspended.",
        metadata: { from: "pending", to: "suspended", allowed: "active,cancelled,revoked" },
      }),
    );
    expect(() => checkTransition("l1", "revoked", "active")).toThrow(
      "License l1 is revoked and can't change any more, not active.",
    );
  });
});

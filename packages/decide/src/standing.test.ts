import { describe, expect, test } from "@jest/globals";
import type { License, LicenseStatus } from "./entitlement.ts";
import { standingAt } from "./standing.ts";

const day = 86_400_000;
const from = Date.parse("2030-01-01T00:00:00Z");
const until = from + 10 * day;

function standing(status: LicenseStatus, nowMs: number, overrides: Partial<License> = {}) {
  const license: License = {
    id: "l1",
    type: "STANDARD",
    product: "trading",
    plan: "standard",
    planVersion: 1,
    status,
    features: new Set(),
    grants: new Map(),
    limits: [],
    addOns: [],
    validFromMs: from,
    validUntilMs: until,
    graceDays: 3,
    endedAtMs: undefined,
    ...overrides,
  };
  return standingAt(license, nowMs);
}

describe("standingAt", () => {
  const followingTheClock: readonly LicenseStatus[] = ["PENDING", "ACTIVE", "GRACE", "EXPIRED"];

  test.each(followingTheClock)("a license stored as %s follows the clock, to the millisecond", (stored) => {
    const graceUntilMs = until + 3 * day;
    const seen = [from - 1, from, until - 1, until, graceUntilMs - 1, graceUntilMs].map((at) => standing(stored, at));
    expect(seen.map(({ status }) => status)).toEqual(["PENDING", "ACTIVE", "ACTIVE", "GRACE", "GRACE", "EXPIRED"]);
    expect(seen.map((one) => one.graceUntilMs)).toEqual([
      undefined,
      undefined,
      undefined,
      graceUntilMs,
      graceUntilMs,
      undefined,
    ]);
  });

  test("without days of grace it expires at its end", () => {
    expect(standing("ACTIVE", until, { graceDays: 0 }).status).toBe("EXPIRED");
  });

  test("without an end it stays in force", () => {
    expect(standing("ACTIVE", until + 10_000 * day, { validUntilMs: undefined }).status).toBe("ACTIVE");
  });

  test("past due shows while it is valid, and buys no time beyond", () => {
    const seen = [from - 1, from, until - 1, until, until + 3 * day].map((at) => standing("PAST_DUE", at).status);
    expect(seen).toEqual(["PENDING", "PAST_DUE", "PAST_DUE", "GRACE", "EXPIRED"]);
  });

  test("a grace that billing gave counts at once and ends in a suspension, or with the license", () => {
    const unpaid = (unpaidGraceUntilMs: number, at: number) => standing("PAST_DUE", at, { unpaidGraceUntilMs });
    const graceUntilMs = from + 5 * day;
    expect(unpaid(graceUntilMs, from + day)).toEqual({ status: "GRACE", graceUntilMs });
    expect(unpaid(graceUntilMs, graceUntilMs - 1).status).toBe("GRACE");
    expect(unpaid(graceUntilMs, graceUntilMs).status).toBe("SUSPENDED");
    expect(unpaid(graceUntilMs, until + 30 * day).status).toBe("SUSPENDED");
    const end = until + 3 * day;
    expect(unpaid(end, from + day)).toEqual({ status: "GRACE", graceUntilMs: end });
    expect(unpaid(end, end).status).toBe("EXPIRED");
  });

  test.each<LicenseStatus>(["ACTIVE", "PAST_DUE", "SUSPENDED"])(
    "%s, to be cancelled at its end, has no grace",
    (stored) => {
      const at = (nowMs: number) => standing(stored, nowMs, { cancelsAtMs: until });
      expect(at(until - 1).status).toBe(stored);
      expect(at(until)).toEqual({ status: "CANCELLED", graceUntilMs: undefined });
    },
  );

  test.each<LicenseStatus>(["SUSPENDED", "CANCELLED", "REVOKED"])("%s is decided, not timed", (stored) => {
    for (const at of [from - 1, from, until, until + 30 * day]) {
      expect(standing(stored, at)).toEqual({ status: stored, graceUntilMs: undefined });
    }
  });
});

import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { monthAt, monthsStartingIn } from "./billing-months.ts";

const at = (text: string) => new Date(text);
const DAY_MS = 86_400_000;

function starts(validFrom: string, endsAt: string | undefined, from: string, to: string): string[] {
  const time = { validFrom: at(validFrom), endsAt: endsAt === undefined ? undefined : at(endsAt) };
  return monthsStartingIn(time, { start: at(from), end: at(to) }).map(({ start }) => start.toISOString().slice(0, 10));
}

describe("monthsStartingIn", () => {
  test("is anchored on the UTC day on which the license begins", () => {
    expect(starts("2026-11-22T10:00:00Z", undefined, "2026-11-01T00:00:00Z", "2027-02-01T00:00:00Z")).toEqual([
      "2026-11-22",
      "2026-12-22",
      "2027-01-22",
    ]);
  });

  test("the start of a period is included, its end is not", () => {
    expect(starts("2026-11-22T10:00:00Z", undefined, "2026-11-22T00:00:00Z", "2026-12-22T00:00:00Z")).toEqual([
      "2026-11-22",
    ]);
    expect(starts("2026-11-22T10:00:00Z", undefined, "2026-11-22T00:00:00.001Z", "2026-12-22T00:00:00.001Z")).toEqual([
      "2026-12-22",
    ]);
  });

  test("the 31st comes back after a shorter month", () => {
    expect(starts("2027-01-31T00:00:00Z", undefined, "2027-01-01T00:00:00Z", "2027-06-01T00:00:00Z")).toEqual([
      "2027-01-31",
      "2027-02-28",
      "2027-03-31",
      "2027-04-30",
      "2027-05-31",
    ]);
  });

  test.each([
    ["for a year from 10:00", "2026-11-22T10:00:00Z", "2027-11-22T10:00:00Z", 12],
    ["for a year from 29 February", "2028-02-29T10:00:00Z", "2029-02-28T10:00:00Z", 12],
    ["one millisecond longer than a year", "2026-11-22T10:00:00Z", "2027-11-22T10:00:00.001Z", 13],
    ["for 365 days in a leap year", "2028-01-01T00:00:00Z", "2028-12-31T00:00:00Z", 12],
    ["for five hours", "2026-11-22T10:00:00Z", "2026-11-22T15:00:00Z", 1],
    ["revoked before it began", "2026-11-22T10:00:00Z", "2026-11-20T00:00:00Z", 0],
    ["revoked as it began", "2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z", 0],
  ])("a license %s", (_what, from, to, count) => {
    expect(starts(from, to, "2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z")).toHaveLength(count);
  });

  test("there is no month before the license begins", () => {
    expect(starts("2026-11-22T10:00:00Z", undefined, "2025-01-01T00:00:00Z", "2026-11-22T00:00:00Z")).toEqual([]);
  });
});

describe("for every license and period", () => {
  const times = fc.date({ min: at("2020-01-01T00:00:00Z"), max: at("2035-01-01T00:00:00Z"), noInvalidDate: true });
  const licenses = fc.record({ validFrom: times, endsAt: fc.option(times, { nil: undefined }) });

  test("months are UTC-aligned, follow on each other and are numbered without gaps from 0", () => {
    fc.assert(
      fc.property(licenses, (license) => {
        const months = monthsStartingIn(license, {
          start: at("2019-01-01T00:00:00Z"),
          end: at("2036-01-01T00:00:00Z"),
        });
        expect(months.map(({ index }) => index)).toEqual(months.map((_month, index) => index));
        for (const [index, { start, end }] of months.entries()) {
          expect(start.getTime() % DAY_MS).toBe(0);
          const days = (end.getTime() - start.getTime()) / DAY_MS;
          expect(days).toBeGreaterThanOrEqual(28);
          expect(days).toBeLessThanOrEqual(31);
          if (index > 0) expect(months[index - 1]?.end).toEqual(start);
          if (license.endsAt) expect(start < license.endsAt).toBe(true);
        }
      }),
    );
  });

  test("a month starts in exactly one of the periods that time is cut into", () => {
    fc.assert(
      fc.property(licenses, times, times, times, (license, ...cuts) => {
        const [a, b, c] = cuts.sort((x, y) => x.getTime() - y.getTime()) as [Date, Date, Date];
        const whole = monthsStartingIn(license, { start: a, end: c });
        const parts = [
          { start: a, end: b },
          { start: b, end: c },
        ].flatMap((part) => monthsStartingIn(license, part));
        expect(parts).toEqual(whole);
      }),
    );
  });

  test("monthAt finds the month around a time, and none elsewhere", () => {
    fc.assert(
      fc.property(licenses, times, (license, time) => {
        const all = monthsStartingIn(license, { start: at("2019-01-01T00:00:00Z"), end: at("2036-01-01T00:00:00Z") });
        expect(monthAt(license, time)).toEqual(all.find(({ start, end }) => start <= time && time < end));
      }),
    );
  });
});

import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { wholeHours } from "./period.ts";

const now = new Date("2026-11-22T10:20:00.000Z");
const at = (text: string): Date => new Date(text);

describe("wholeHours", () => {
  test("without bounds: the 30 days up to the end of the present hour", () => {
    expect(wholeHours(undefined, undefined, now)).toEqual({
      start: at("2026-10-23T11:00:00Z"),
      end: at("2026-11-22T11:00:00Z"),
    });
  });

  test("rounds the start down and the end up, and keeps whole hours", () => {
    expect(wholeHours(at("2026-11-01T00:59:59.999Z"), at("2026-11-01T01:00:00.001Z"), now)).toEqual({
      start: at("2026-11-01T00:00:00Z"),
      end: at("2026-11-01T02:00:00Z"),
    });
    const whole = { start: at("2026-11-01T00:00:00Z"), end: at("2026-11-01T02:00:00Z") };
    expect(wholeHours(whole.start, whole.end, now)).toEqual(whole);
  });

  test("covers what was asked, in whole hours", () => {
    const date = fc.date({ min: at("2024-06-01T00:00:00Z"), max: now, noInvalidDate: true });
    fc.assert(
      fc.property(date, date, (one, other) => {
        const [start, end] = one < other ? [one, other] : [other, one];
        if (start.getTime() === end.getTime()) return true;
        const period = wholeHours(start, end, now);
        const hour = 3_600_000;
        return (
          period.start <= start &&
          period.end >= end &&
          start.getTime() - period.start.getTime() < hour &&
          period.end.getTime() - end.getTime() < hour &&
          period.start.getTime() % hour === 0 &&
          period.end.getTime() % hour === 0
        );
      }),
    );
  });

  test("refuses a period that ends before it begins, or is too long", () => {
    expect(() => wholeHours(at("2026-11-22T12:00:00Z"), undefined, now)).toThrow("start_time: must be earlier");
    expect(() => wholeHours(at("2020-01-01T00:00:00Z"), undefined, now)).toThrow("at most 1100 days");
  });
});

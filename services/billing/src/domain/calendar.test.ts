import { describe, expect, test } from "@jest/globals";
import { addMonths, calendarMonthOf, calendarMonthsBetween, startOfDay } from "./calendar.ts";

const at = (text: string) => new Date(text);

describe("addMonths", () => {
  test.each([
    ["keeps day and time", "2026-11-22T10:15:00.250Z", 1, "2026-12-22T10:15:00.250Z"],
    ["goes over the year", "2026-11-22T00:00:00Z", 14, "2028-01-22T00:00:00Z"],
    ["goes back", "2026-01-31T00:00:00Z", -2, "2025-11-30T00:00:00Z"],
    ["ends on the last day of a shorter month", "2027-01-31T23:00:00Z", 1, "2027-02-28T23:00:00Z"],
    ["knows leap years", "2028-01-31T00:00:00Z", 1, "2028-02-29T00:00:00Z"],
    ["comes from 29 February to 28 February", "2028-02-29T12:00:00Z", 12, "2029-02-28T12:00:00Z"],
    ["works before 1970 too", "1969-12-31T00:00:00Z", 2, "1970-02-28T00:00:00Z"],
  ])("%s", (_what, from, months, to) => {
    expect(addMonths(at(from), months)).toEqual(at(to));
  });
});

test("calendarMonthsBetween counts months, not days", () => {
  expect(calendarMonthsBetween(at("2026-11-30T00:00:00Z"), at("2026-12-01T00:00:00Z"))).toBe(1);
  expect(calendarMonthsBetween(at("2026-11-01T00:00:00Z"), at("2026-11-30T00:00:00Z"))).toBe(0);
  expect(calendarMonthsBetween(at("2027-01-01T00:00:00Z"), at("2025-12-31T23:59:59Z"))).toBe(-13);
});

test("a day and a month start at UTC midnight", () => {
  expect(startOfDay(at("2026-11-22T23:59:59.999Z"))).toEqual(at("2026-11-22T00:00:00Z"));
  expect(startOfDay(at("1969-12-31T10:00:00Z"))).toEqual(at("1969-12-31T00:00:00Z"));
  expect(calendarMonthOf(at("2026-12-31T23:59:59.999Z"))).toEqual({
    start: at("2026-12-01T00:00:00Z"),
    end: at("2027-01-01T00:00:00Z"),
  });
});

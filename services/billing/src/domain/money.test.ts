import { describe, expect, test } from "@jest/globals";
import Big from "big.js";
import fc from "fast-check";
import { minorDecimals, monthlyPart, toMajor, toMinor } from "./money.ts";

const amounts = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n });

describe("monthlyPart", () => {
  test("USD 25,000.00 a year is 2,083.34 four times and 2,083.33 eight times, year after year", () => {
    const year = [...Array<bigint>(4).fill(208_334n), ...Array<bigint>(8).fill(208_333n)];
    expect(Array.from({ length: 24 }, (_, month) => monthlyPart(2_500_000n, month))).toEqual([...year, ...year]);
  });

  test("twelve months in a row sum to the year, whichever is the first, and differ by at most one minor unit", () => {
    fc.assert(
      fc.property(amounts, fc.nat(1_000), (year, first) => {
        const parts = Array.from({ length: 12 }, (_, month) => monthlyPart(year, first + month));
        expect(parts.reduce((sum, part) => sum + part)).toBe(year);
        const sorted = [...new Set(parts)].sort((a, b) => Number(b - a));
        expect((sorted[0] ?? 0n) - (sorted.at(-1) ?? 0n)).toBeLessThanOrEqual(1n);
      }),
    );
  });
});

test.each([
  ["USD", 2],
  ["JPY", 0],
  ["KWD", 3],
  // Those that people write without decimals, but banks don't.
  ["IQD", 3],
  ["HUF", 2],
  ["LBP", 2],
  ["CLF", 4],
])("the minor unit of %s has %i decimals", (currency, decimals) => {
  expect(minorDecimals(currency)).toBe(decimals);
});

describe("toMinor", () => {
  test.each([
    ["6.25", "USD", 625n],
    ["0.0125", "USD", 1n],
    ["0.005", "USD", 1n],
    ["0.004999999999", "USD", 0n],
    ["2.5", "JPY", 3n],
    ["1.2345", "KWD", 1235n],
    ["12345678901234567890.125", "USD", 1_234_567_890_123_456_789_013n],
  ])("%s %s", (major, currency, minor) => {
    expect(toMinor(Big(major), currency)).toBe(minor);
  });

  test("is the inverse of toMajor", () => {
    fc.assert(
      fc.property(amounts, fc.constantFrom("USD", "JPY", "KWD", "UYW"), (amountMinor, currency) => {
        expect(toMinor(Big(toMajor({ currency, amountMinor })), currency)).toBe(amountMinor);
      }),
    );
  });
});

test.each([
  ["USD", 208_334n, "2083.34"],
  ["USD", 5n, "0.05"],
  ["JPY", 250n, "250"],
  ["KWD", 1_500n, "1.500"],
])("toMajor writes %s %i as %s%s", (currency, amountMinor, text) => {
  expect(toMajor({ currency, amountMinor })).toBe(text);
});

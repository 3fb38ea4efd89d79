import { describe, expect, test } from "@jest/globals";
import Big from "big.js";
import fc from "fast-check";
import { chargesIn, type UsageCharge } from "./charges.ts";
import type { PricedLicense } from "./pricing.ts";
import { license, period, standard } from "./testing.ts";
import { attribute, type Usage } from "./usage.ts";

const eternity = period("2020-01-01", "2040-01-01");

function used(day: string, quantity: string, licenseId?: string, metric = "exchange_requests"): Usage {
  return { metric, licenseId, start: new Date(`${day}T00:00:00Z`), quantity };
}

function usageCharges(licenses: readonly PricedLicense[]): UsageCharge[] {
  return chargesIn(licenses, eternity).filter((charge) => charge.kind === "usage");
}

/** What is charged, as `license month quantity`. */
function charged(licenses: readonly PricedLicense[], usage: readonly Usage[]): string[] {
  const quantityOf = attribute(licenses, usage);
  return usageCharges(licenses).flatMap((charge) => {
    const quantity = quantityOf(charge);
    const { license: of, span } = charge;
    return quantity.eq(0) ? [] : `${of.licenseId} ${span.start.toISOString().slice(0, 10)} ${quantity.toFixed()}`;
  });
}

const older = license({ licenseId: "older", validFrom: new Date("2026-11-10T00:00:00Z"), endsAt: undefined });
const newer = license({ licenseId: "newer", validFrom: new Date("2026-11-01T00:00:00Z"), endsAt: undefined });

test("use that names a license is that license's, in its months", () => {
  const usage = [used("2026-12-09", "1", "older"), used("2026-12-10", "2", "older"), used("2026-12-10", "4", "newer")];
  expect(charged([older, newer], usage)).toEqual(["older 2026-11-10 1", "older 2026-12-10 2", "newer 2026-12-01 4"]);
});

describe("use that names no license", () => {
  test("belongs to the oldest license for all of its month, whatever other licenses there are", () => {
    const usage = [used("2026-11-10", "1"), used("2026-12-05", "2"), used("2026-12-09", "4"), used("2026-12-10", "8")];
    expect(charged([older, newer], usage)).toEqual(["older 2026-11-10 7", "older 2026-12-10 8"]);
  });

  test("belongs to the next one before the oldest begins and after its last month", () => {
    const ended = { ...older, endsAt: new Date("2026-11-20T00:00:00Z") };
    const usage = [used("2026-11-05", "1"), used("2026-12-09", "2"), used("2026-12-10", "4")];
    expect(charged([ended, newer], usage)).toEqual(["older 2026-11-10 2", "newer 2026-11-01 1", "newer 2026-12-01 4"]);
  });

  test("passes by a license that does not price the metric", () => {
    const free = license({ licenseId: "free", prices: { ...standard, usage: [] } });
    expect(charged([free, newer], [used("2026-11-23", "1")])).toEqual(["newer 2026-11-01 1"]);
  });
});

test("decimals are summed exactly", () => {
  expect(charged([newer], [used("2026-11-02", "0.1"), used("2026-11-03", "0.2"), used("2026-11-03", "1e0")])).toEqual([
    "newer 2026-11-01 1.3",
  ]);
});

test("use of nobody's license, of a metric without a price or outside of all months is not charged", () => {
  const usage = [
    used("2026-11-23", "1", "unknown"),
    used("2026-11-23", "1", undefined, "orders"),
    used("2026-10-31", "1"),
    used("2026-10-31", "1", "newer"),
  ];
  expect(charged([older, newer], usage)).toEqual([]);
});

test("no use is charged twice, and none is lost that a month of a license covers", () => {
  const times = fc.date({
    min: new Date("2026-01-01T00:00:00Z"),
    max: new Date("2028-01-01T00:00:00Z"),
    noInvalidDate: true,
  });
  const spans = fc.record({ validFrom: times, endsAt: fc.option(times, { nil: undefined }) });
  fc.assert(
    fc.property(fc.array(spans, { maxLength: 4 }), fc.array(times, { maxLength: 20 }), (spansOfLicenses, days) => {
      const licenses = spansOfLicenses.map((span, index) => license({ ...span, licenseId: `l${index}` }));
      const usage = days.map((start) => ({ ...used("2026-01-01", "1"), start }));
      const quantityOf = attribute(licenses, usage);
      const charges = usageCharges(licenses);
      const covered = days.filter((day) => charges.some(({ span }) => span.start <= day && day < span.end));
      const sum = charges.reduce((total, charge) => total.plus(quantityOf(charge)), Big(0));
      expect(sum.toFixed()).toBe(`${covered.length}`);
    }),
  );
});

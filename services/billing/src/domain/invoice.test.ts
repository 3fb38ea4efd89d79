import { describe, expect, test } from "@jest/globals";
import Big from "big.js";
import fc from "fast-check";
import { chargesIn } from "./charges.ts";
import { invoiceLines, totalOf } from "./invoice.ts";
import type { UsagePrice } from "./pricing.ts";
import { license, period, standard } from "./testing.ts";

const november = period("2026-11-01", "2026-12-01");

function linesFor(quantity: string, price: Partial<UsagePrice> = {}) {
  const usage = standard.usage.map((one) => ({ ...one, ...price }));
  return invoiceLines(chargesIn([license({ prices: { ...standard, usage } })], november), () => Big(quantity));
}

test("1,000 requests, 500 of them included, cost USD 6.25 beside the month's part of the year", () => {
  const lines = linesFor("1000");
  expect(lines).toEqual([
    {
      kind: "base",
      license: license(),
      description: "Standard of trading",
      span: expect.objectContaining(period("2026-11-22", "2026-12-22")),
      metric: undefined,
      addOn: undefined,
      quantity: "1",
      included: "0",
      billable: "1",
      unitPrice: "2083.34",
      amount: { currency: "USD", amountMinor: 208_334n },
    },
    {
      kind: "usage",
      license: license(),
      description: "exchange_requests: 1000 used, 500 included",
      span: expect.objectContaining(period("2026-11-22", "2026-12-22")),
      metric: "exchange_requests",
      addOn: undefined,
      quantity: "1000",
      included: "500",
      billable: "500",
      unitPrice: "0.0125",
      amount: { currency: "USD", amountMinor: 625n },
    },
  ]);
  expect(totalOf(lines, "USD")).toEqual({ currency: "USD", amountMinor: 208_959n });
});

test("units of an add-on are whole units times the price; a month's part is that of one unit", () => {
  const price = { currency: "USD", amountMinor: 400_000n, cycle: "year" as const };
  const held = license({ prices: { ...standard, usage: [] }, addOns: [{ addOn: "tb", quantity: 3, price }] });
  const [, line] = invoiceLines(chargesIn([held], november), () => Big(0));
  expect(line).toMatchObject({
    kind: "add_on",
    description: "tb with Standard of trading",
    addOn: "tb",
    quantity: "3",
    included: "0",
    billable: "3",
    unitPrice: "333.34",
    amount: { currency: "USD", amountMinor: 100_002n },
  });
});

test("units of an add-on that come to more than an amount can be are refused", () => {
  const price = { currency: "USD", amountMinor: 2n ** 62n, cycle: "month" as const };
  const charges = chargesIn([license({ addOns: [{ addOn: "tb", quantity: 2, price }] })], november);
  expect(() => invoiceLines(charges, () => Big(0))).toThrow("add-on tb of license l1");
});

describe("a usage line", () => {
  test.each([
    ["is there and free up to what is included", "500", "0", 0n],
    ["counts only what is beyond", "501", "1", 1n],
    ["is rounded half up once, not for each unit", "503", "3", 4n],
    ["charges parts of a unit", "500.4", "0.4", 1n],
    ["rounds down below a half", "500.3", "0.3", 0n],
  ])("%s", (_what, quantity, billable, amountMinor) => {
    expect(linesFor(quantity)[1]).toMatchObject({ quantity, billable, amount: { amountMinor } });
  });

  test("is absent where nothing was used", () => {
    expect(linesFor("0")).toHaveLength(1);
  });

  test("writes large quantities out", () => {
    const line = linesFor("123456789012345678901234", { decimal: "0" })[1];
    expect(line).toMatchObject({ quantity: "123456789012345678901234", billable: "123456789012345678900734" });
  });

  test("charges at least nothing, exactly within half a minor unit", () => {
    const prices = fc
      .tuple(fc.nat(1_000), fc.nat(999_999))
      .map(([whole, part]) => `${whole}.${String(part).padStart(6, "0")}`);
    fc.assert(
      fc.property(fc.nat(10 ** 9), fc.nat(10 ** 6), prices, (quantity, included, decimal) => {
        fc.pre(quantity > 0);
        const line = linesFor(`${quantity}`, { includedPerMonth: BigInt(included), decimal })[1];
        const exact = Big(Math.max(0, quantity - included))
          .times(decimal)
          .times(100);
        const off = Big((line?.amount.amountMinor ?? -1n).toString()).minus(exact);
        expect(off.gt("-0.5") && off.lte("0.5")).toBe(true);
      }),
    );
  });
});

describe("what no amount can hold is refused", () => {
  test("in a line", () => {
    expect(() => linesFor("999999999999999999", { decimal: "1000" })).toThrow(
      expect.objectContaining({
        code: "FAILED_PRECONDITION",
        reason: "AMOUNT_TOO_LARGE",
        message: expect.stringContaining("the use of exchange_requests under license l1"),
      }),
    );
  });

  test("in the total", () => {
    const [line] = linesFor("0");
    if (line === undefined) throw new Error("there is a base line");
    const huge = { ...line, amount: { currency: "USD", amountMinor: 2n ** 62n } };
    expect(totalOf([huge], "USD").amountMinor).toBe(2n ** 62n);
    expect(() => totalOf([huge, huge], "USD")).toThrow(expect.objectContaining({ reason: "AMOUNT_TOO_LARGE" }));
  });
});

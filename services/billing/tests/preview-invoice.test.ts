import { type MessageInitShape, toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { beforeEach, describe, expect, test } from "@jest/globals";
import { InvoiceLineKind, InvoiceSchema } from "@licet/contracts/licet/billing/v1/invoice_pb";
import type { PreviewInvoiceRequestSchema } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { Cycle } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { platformError } from "@licet/platform/errors";
import { until } from "@licet/platform/testing/until";
import { createHarness, type Harness, license, licenseId, requests, standard, time } from "./harness.ts";

let harness: Harness;

beforeEach(() => {
  harness = createHarness();
  harness.fakes.plans.set("trading/standard/1", standard);
  harness.fakes.licenses.set("nile-brokers", [license()]);
});

type Question = MessageInitShape<typeof PreviewInvoiceRequestSchema>;

async function preview(question: Question = {}) {
  const { invoice } = await harness.client().previewInvoice({ customerId: "nile-brokers", ...question });
  if (invoice === undefined) throw new Error("an answer has an invoice");
  return invoice;
}

/** Lines as `license start metric amount`, the license by its number and the metric empty for base lines. */
async function lines(question: Question = {}): Promise<string[]> {
  const { lines: all } = await preview(question);
  return all.map(({ licenseId: id, serviceStart, metric, amount }) => {
    const start = serviceStart && timestampDate(serviceStart).toISOString().slice(0, 10);
    return [Number(id.slice(-4)), start, metric || "base", amount?.amountMinor].join(" ");
  });
}

const year = { periodStart: time("2026-11-01T00:00:00Z"), periodEnd: time("2027-11-01T00:00:00Z") };

test("the standard plan's first month with 1,000 requests comes to USD 2,083.34 + 6.25 = 2,089.59", async () => {
  harness.fakes.events.push(
    requests(400, "2026-11-01T00:00:00Z", { licenseId: licenseId(1) }),
    requests(600, "2026-11-25T12:29:00Z"),
  );
  expect(toJson(InvoiceSchema, await preview())).toEqual({
    customerId: "nile-brokers",
    periodStart: "2026-11-01T00:00:00Z",
    periodEnd: "2026-12-01T00:00:00Z",
    lines: [
      {
        kind: "INVOICE_LINE_KIND_BASE",
        licenseId: licenseId(1),
        product: "trading",
        plan: "standard",
        description: "The standard of trading",
        serviceStart: "2026-11-01T00:00:00Z",
        serviceEnd: "2026-12-01T00:00:00Z",
        quantity: "1",
        includedQuantity: "0",
        billableQuantity: "1",
        unitPrice: { currency: "USD", decimal: "2083.34" },
        amount: { currency: "USD", amountMinor: "208334" },
      },
      {
        kind: "INVOICE_LINE_KIND_USAGE",
        licenseId: licenseId(1),
        product: "trading",
        plan: "standard",
        description: "exchange_requests: 1000 used, 500 included",
        serviceStart: "2026-11-01T00:00:00Z",
        serviceEnd: "2026-12-01T00:00:00Z",
        metric: "exchange_requests",
        quantity: "1000",
        includedQuantity: "500",
        billableQuantity: "500",
        unitPrice: { currency: "USD", decimal: "0.0125" },
        amount: { currency: "USD", amountMinor: "625" },
      },
    ],
    total: { currency: "USD", amountMinor: "208959" },
  });
});

test("add-ons are lines of their own: delta-foods' extra terabyte for USD 4,000 a year beside its plan", async () => {
  const addOns = [
    {
      addOn: "extra-tb",
      version: 1,
      quantity: 1,
      price: { currency: "USD", amountMinor: 400_000n },
      priceCycle: Cycle.YEAR,
    },
    { addOn: "training", version: 1, quantity: 2 },
  ];
  harness.fakes.licenses.set("nile-brokers", [license({ addOns })]);
  const { lines: all, total } = await preview();
  expect(
    all.map(({ kind, addOn, quantity, unitPrice, amount }) => [
      kind,
      addOn,
      quantity,
      unitPrice?.decimal,
      amount?.amountMinor,
    ]),
  ).toEqual([
    [InvoiceLineKind.BASE, "", "1", "2083.34", 208_334n],
    [InvoiceLineKind.ADD_ON, "extra-tb", "1", "333.34", 33_334n],
  ]);
  expect(total?.amountMinor).toBe(241_668n);
  expect((await preview(year)).total?.amountMinor).toBe(2_900_000n);
});

test("a license whose plan is free is billed for its add-ons; a price of an unknown cycle is no guess", async () => {
  harness.fakes.plans.set("trading/standard/1", {});
  const held = { addOn: "extra-tb", version: 1, quantity: 2, price: { currency: "USD", amountMinor: 400_000n } };
  const free = (priceCycle: Cycle) => license({ billingCycle: Cycle.UNSPECIFIED, addOns: [{ ...held, priceCycle }] });
  harness.fakes.licenses.set("nile-brokers", [free(Cycle.YEAR)]);
  expect(await lines()).toEqual(["1 2026-11-01 base 800000"]);
  harness.fakes.licenses.set("nile-brokers", [free(Cycle.UNSPECIFIED)]);
  await expect(preview()).rejects.toMatchObject({ code: "INTERNAL" });
});

describe("the period", () => {
  test("twelve months sum to the year", async () => {
    const { total, lines: all } = await preview(year);
    expect(all).toHaveLength(12);
    expect(total).toMatchObject({ currency: "USD", amountMinor: 2_500_000n });
  });

  test("is a month where only its start is given", async () => {
    const { periodEnd } = await preview({ periodStart: time("2027-01-31T06:00:00Z") });
    expect(periodEnd).toEqual(time("2027-02-28T06:00:00Z"));
  });

  test("holds what will be due, before it is", async () => {
    expect(await lines({ periodStart: time("2027-03-01T00:00:00Z") })).toEqual(["1 2027-03-01 base 208333"]);
    expect(harness.fakes.asked).not.toContain("tradsys GetUsageStats");
  });
});

describe("licenses", () => {
  test("of the customer are all billed, page by page, each by the plan version that it has", async () => {
    harness.fakes.plans.set("trading/standard/2", { ...standard, price: { currency: "USD", amountMinor: 1_200n } });
    const numbers = [1, 2, 3, 4, 5];
    harness.fakes.licenses.set(
      "nile-brokers",
      numbers.map((number) => license({ licenseId: licenseId(number), planVersion: number === 5 ? 2 : 1 })),
    );
    const amounts = [208_334, 208_334, 208_334, 208_334, 100];
    expect(await lines()).toEqual(numbers.map((number, index) => `${number} 2026-11-01 base ${amounts[index]}`));
    expect(harness.fakes.asked.filter((one) => one === "tradsys GetPlan")).toHaveLength(2);
  });

  test("without a plan or a price cost nothing", async () => {
    harness.fakes.plans.set("trading/trial/1", {});
    const bare = license({ plan: "", planVersion: 0, billingCycle: Cycle.UNSPECIFIED });
    harness.fakes.licenses.set("nile-brokers", [bare, license({ plan: "trial" })]);
    harness.fakes.events.push(requests(1_000, "2026-11-02T00:00:00Z"));
    const invoice = await preview();
    expect(invoice.lines).toEqual([]);
    expect(invoice.total).toMatchObject({ currency: "USD", amountMinor: 0n });
  });

  test("that are suspended are billed on", async () => {
    harness.fakes.licenses.set("nile-brokers", [license({ status: LicenseStatus.SUSPENDED })]);
    expect(await lines()).toEqual(["1 2026-11-01 base 208334"]);
  });

  test.each([
    ["revoked", { endedAt: time("2027-01-15T00:00:00Z") }],
    ["over", { validUntil: time("2027-01-15T00:00:00Z") }],
    [
      "revoked after they were over",
      { validUntil: time("2027-01-15T00:00:00Z"), endedAt: time("2027-06-01T00:00:00Z") },
    ],
  ])("that are %s have no later months", async (_what, ends) => {
    harness.fakes.licenses.set("nile-brokers", [license(ends)]);
    const months = ["2026-11-01", "2026-12-01", "2027-01-01"];
    expect(await lines(year)).toEqual(months.map((month) => `1 ${month} base 208334`));
  });

  test("billed yearly have a line a year, and use by the month", async () => {
    const yearly = { validFrom: time("2025-11-10T00:00:00Z"), validUntil: time("2030-11-10T00:00:00Z") };
    harness.fakes.licenses.set("nile-brokers", [license({ ...yearly, billingCycle: Cycle.YEAR })]);
    harness.fakes.events.push(requests(501, "2026-11-11T00:00:00Z"), requests(700, "2026-10-12T00:00:00Z"));
    const autumn = { periodStart: time("2026-10-01T00:00:00Z"), periodEnd: time("2026-12-01T00:00:00Z") };
    expect(await lines(autumn)).toEqual([
      "1 2026-11-10 base 2500000",
      "1 2026-10-10 exchange_requests 250",
      "1 2026-11-10 exchange_requests 1",
    ]);
  });

  test("with a cycle that only a newer licensing service knows are not guessed at", async () => {
    harness.fakes.licenses.set("nile-brokers", [license({ billingCycle: 9 as Cycle })]);
    await expect(preview()).rejects.toMatchObject({ code: "INTERNAL", reason: "INTERNAL" });
  });
});

describe("use", () => {
  test("is summed over all pages, and goes to the month of the license in which it lies", async () => {
    harness.clock.now = new Date("2027-02-01T00:00:00Z");
    const days = ["02", "03", "04", "05", "06"];
    harness.fakes.events.push(
      ...days.map((day) => requests(200, `2026-11-${day}T23:59:59Z`)),
      requests(508, "2026-12-01T00:00:00Z"),
      requests(9_999, "2026-10-31T23:59:59Z"),
    );
    expect(await lines(year)).toEqual(
      expect.arrayContaining(["1 2026-11-01 exchange_requests 625", "1 2026-12-01 exchange_requests 10"]),
    );
    expect((await preview(year)).lines).toHaveLength(14);
  });

  test("of which there are more sums than one answer can be made of is refused, not cut off", async () => {
    harness.clock.now = new Date("2027-10-31T00:00:00Z");
    const firstMs = Date.parse("2026-11-01T00:00:00Z");
    const days = Array.from({ length: 90 }, (_, day) => new Date(firstMs + day * 86_400_000).toISOString());
    harness.fakes.events.push(...days.map((day) => requests(1, day)));
    await expect(preview(year)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [{ field: "period_end", description: expect.stringContaining("ask for a shorter one") }],
    });
    expect(await lines({ periodStart: year.periodStart })).toHaveLength(2);
  });

  test("that is included is shown and costs nothing", async () => {
    harness.fakes.events.push(requests(500, "2026-11-02T00:00:00Z"));
    expect(await lines()).toEqual(["1 2026-11-01 base 208334", "1 2026-11-01 exchange_requests 0"]);
  });

  test("finds its license also where the sender wrote the id in capitals", async () => {
    const second = license({ licenseId: licenseId(2) });
    harness.fakes.licenses.set("nile-brokers", [license(), second]);
    harness.fakes.events.push(requests(600, "2026-11-02T00:00:00Z", { licenseId: licenseId(2).toUpperCase() }));
    expect(await lines()).toContain("2 2026-11-01 exchange_requests 125");
  });

  test("without a license stays with the oldest one also when another currency is asked for", async () => {
    harness.fakes.plans.set("trading/euro/1", {
      usagePrices: [{ metric: "exchange_requests", unitPrice: { currency: "EUR", decimal: "1" } }],
    });
    harness.fakes.licenses.set("nile-brokers", [license(), license({ licenseId: licenseId(2), plan: "euro" })]);
    harness.fakes.events.push(requests(1_000, "2026-11-02T00:00:00Z"));
    expect(await lines({ currency: "EUR" })).toEqual([]);
    expect(await lines({ currency: "USD" })).toEqual([
      "1 2026-11-01 base 208334",
      "1 2026-11-01 exchange_requests 625",
    ]);
  });
});

test("charges in several currencies need one to be asked for", async () => {
  harness.fakes.plans.set("trading/euro/1", { price: { currency: "EUR", amountMinor: 500n }, priceCycle: Cycle.MONTH });
  harness.fakes.licenses.set("nile-brokers", [license(), license({ licenseId: licenseId(2), plan: "euro" })]);
  await expect(preview()).rejects.toMatchObject({
    code: "FAILED_PRECONDITION",
    reason: "MIXED_CURRENCIES",
    metadata: { currencies: "EUR,USD" },
  });
  const { total, lines: all } = await preview({ currency: "EUR" });
  expect(all).toHaveLength(1);
  expect(total).toMatchObject({ currency: "EUR", amountMinor: 500n });
  expect((await preview({ currency: "CHF" })).total).toMatchObject({ currency: "CHF", amountMinor: 0n });
});

test("more than an amount can hold is refused with the reason", async () => {
  const huge = { quantity: "999999999999999999" };
  harness.fakes.events.push(
    ...Array.from({ length: 9 }, (_, day) => requests(0, `2026-11-0${day + 1}T00:00:00Z`, huge)),
  );
  harness.fakes.plans.set("trading/standard/1", {
    usagePrices: [{ metric: "exchange_requests", unitPrice: { currency: "USD", decimal: "1" } }],
  });
  await expect(preview()).rejects.toMatchObject({ code: "FAILED_PRECONDITION", reason: "AMOUNT_TOO_LARGE" });
});

describe("bad input", () => {
  test.each<[string, Question, string]>([
    ["no customer", { customerId: "" }, "customer_id"],
    ["a currency that is none", { currency: "usd" }, "currency"],
    ["an end without a start", { periodEnd: time("2026-12-01T00:00:00Z") }, "period_start is required"],
    [
      "an end at its start",
      { periodStart: time("2026-11-01T00:00:00Z"), periodEnd: time("2026-11-01T00:00:00Z") },
      "period_end must be later",
    ],
    [
      "a period of 367 days",
      { periodStart: time("2026-11-01T00:00:00Z"), periodEnd: time("2027-11-03T00:00:00Z") },
      "at most 366 days",
    ],
    ["a start in the year 9999", { periodStart: time("9999-12-20T00:00:00Z") }, "period_start: must lie in the years"],
    ["a start in no year", { periodStart: { seconds: 10n ** 15n } }, "period_start"],
    [
      "an end in no year",
      { periodStart: time("2026-11-01T00:00:00Z"), periodEnd: { seconds: 10n ** 15n } },
      "period_end",
    ],
  ])("%s", async (_what, question, message) => {
    await expect(preview(question)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "INVALID_FIELD",
      message: expect.stringContaining(message),
    });
    expect(harness.fakes.asked).toEqual([]);
  });

  test("an unknown customer", async () => {
    await expect(preview({ customerId: "nobody" })).rejects.toMatchObject({
      code: "NOT_FOUND",
      reason: "CUSTOMER_NOT_FOUND",
    });
  });

  test("a key without the scope", async () => {
    const client = harness.client("tradsys", ["usage:read"]);
    await expect(client.previewInvoice({ customerId: "nile-brokers" })).rejects.toMatchObject({
      reason: "SCOPE_MISSING",
    });
  });
});

test("each call is made for the caller's tenant: another one sees nothing", async () => {
  await expect(harness.client("rankmath").previewInvoice({ customerId: "nile-brokers" })).rejects.toMatchObject({
    reason: "CUSTOMER_NOT_FOUND",
  });
  harness.fakes.asked.length = 0;
  await preview();
  expect(new Set(harness.fakes.asked)).toEqual(
    new Set(["tradsys GetCustomer", "tradsys ListLicenses", "tradsys GetPlan", "tradsys GetUsageStats"]),
  );
});

describe("when another service does not answer", () => {
  test.each([
    ["GetPlan", "licensing"],
    ["GetUsageStats", "usage-metering"],
  ])("%s: it says so, and nothing of what was answered to billing", async (method, service) => {
    harness.fakes.before = (call) => {
      if (call.method.name === method) throw platformError("SCOPE_MISSING", "the mesh lacks a scope");
    };
    await expect(preview()).rejects.toMatchObject({
      code: "UNAVAILABLE",
      reason: "DEPENDENCY_UNAVAILABLE",
      message: `the ${service} service can't be asked; try again`,
    });
  });

  test("its calls end with the caller's deadline", async () => {
    const ended: string[] = [];
    harness.fakes.before = (call) => {
      return new Promise((_resolve, reject) => {
        call.signal.addEventListener("abort", () => {
          ended.push(call.method.name);
          reject(call.signal.reason);
        });
      });
    };
    const asking = harness.client().previewInvoice({ customerId: "nile-brokers" }, { timeoutMs: 1_000 });
    await expect(asking).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await until("both calls have ended", () => ended.length === 2);
    expect(ended.sort()).toEqual(["GetCustomer", "ListLicenses"]);
  });
});

test("it serves between start and stop", () => {
  expect(harness.billing.ready()).toBe(true);
  harness.billing.stop();
  expect(harness.billing.ready()).toBe(false);
});

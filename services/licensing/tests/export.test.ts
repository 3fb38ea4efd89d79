import { setTimeout as delay } from "node:timers/promises";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { BulkFormat, BulkKind, type Import } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import type { ExportRequest } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { Cycle, LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { inTenant } from "@licet/platform/database/database";
import { ServiceError } from "@licet/platform/errors";
import { newId } from "@licet/platform/ids";
import fc from "fast-check";
import { sql } from "kysely";
import { type Clients, type Harness, seedTenant, startHarness } from "./harness.ts";

let harness: Harness;
let tenants = 0;

beforeAll(async () => {
  harness = await startHarness();
});
afterAll(() => harness.stop());

/** A tenant of its own with three plans and, unless it is to be empty, the customer of the harness. */
async function newTenant({ empty = false } = {}): Promise<Clients & { readonly tenant: string }> {
  const tenant = `brand-${tenants++}`;
  const clients = await seedTenant(harness, tenant, { customer: !empty });
  for (const [plan, price] of [
    ["gold", { price: { currency: "USD", amountMinor: 100n }, priceCycle: Cycle.YEAR }],
    ["trial", {}],
  ] as const) {
    const type = plan === "trial" ? LicenseType.TRIAL : LicenseType.ENTERPRISE;
    await clients.catalog.createPlan({
      requestId: newId(),
      product: "trading",
      plan,
      name: plan,
      terms: { type, features: ["*"], seats: 9, grantableFeatures: ["*"], ...price },
    });
  }
  for (const [addOn, priced] of [
    ["fixed", { pricing: { case: "price", value: { currency: "USD", amountMinor: 7n } }, priceCycle: Cycle.YEAR }],
    ["agreed", { pricing: { case: "agreed", value: true }, priceCycle: Cycle.MONTH }],
  ] as const) {
    const terms = { features: ["egx_access"], seats: 2, offers: [{ plan: "gold", ...priced }] };
    await clients.catalog.createAddOn({ requestId: newId(), product: "trading", addOn, name: addOn, terms });
  }
  const free = {
    features: ["egx_access"],
    offers: [{ plan: "standard", pricing: { case: "free", value: true } as const }],
  };
  await clients.catalog.createAddOn({ requestId: newId(), product: "trading", addOn: "free", name: "f", terms: free });
  return { tenant, ...clients };
}

type Wanted = Partial<Pick<ExportRequest, "kind" | "format" | "selection" | "resumeToken">>;

/** An export as one file. `maxMessages` gives it up early, as a reader does whose connection breaks. */
async function exported(clients: Clients, wanted: Wanted, maxMessages = Number.POSITIVE_INFINITY) {
  const pieces: Uint8Array[] = [];
  let resumeToken = "";
  const leaving = new AbortController();
  const request = { kind: BulkKind.LICENSES, format: BulkFormat.CSV, ...wanted };
  try {
    for await (const message of clients.bulk.export(request, { signal: leaving.signal })) {
      pieces.push(message.data);
      ({ resumeToken } = message);
      if (pieces.length >= maxMessages) leaving.abort();
    }
  } catch (error) {
    if (!leaving.signal.aborted) throw error;
  }
  return { text: Buffer.concat(pieces).toString(), resumeToken, messages: pieces.length };
}

async function imported(clients: Clients, text: string, kind: BulkKind, format: BulkFormat): Promise<Import> {
  const importId = newId();
  const file = Buffer.from(text);
  let { import: state } = await clients.bulk.startImport({ requestId: newId(), importId, kind, format });
  while (state?.status === 1) {
    const offset = Number(state.nextOffset);
    const end = Math.min(file.length, offset + 100_000);
    const chunk = { importId, offset: state.nextOffset, data: file.subarray(offset, end), final: end === file.length };
    ({ import: state } = await clients.bulk.importChunk(chunk).catch((error: unknown) => {
      if (!(error instanceof ServiceError) || error.code !== "DEADLINE_EXCEEDED") throw error;
      return clients.bulk.getImport({ importId });
    }));
  }
  if (!state) throw new Error("the reply has no import");
  expect([state.failure, state.firstErrors.map(({ line, message }) => `${line} ${message}`)]).toEqual(["", []]);
  return state;
}

const header =
  "license_id,customer_id,product,plan,plan_version,features,limits,seats,valid_from,valid_until,grace_days,billing_cycle," +
  "auto_renew,metadata,status,status_reason,suspended_by_billing,unpaid_grace_until,cancels_at,cancel_reason,ended_at,created_at,grants,add_ons\r\n";

test("licenses as CSV: the header, by id, what was decided", async () => {
  const clients = await newTenant();
  const ids = ["0193ffff-0000-7000-8000-000000000002", "01930000-0000-7000-8000-000000000001"];
  for (const licenseId of ids) {
    await clients.licenses.provisionLicense({
      requestId: newId(),
      licenseId,
      customerId: "nile",
      product: "trading",
      plan: "gold",
      metadata: { order: 'A "17"' },
    });
  }
  await clients.licenses.suspendLicense({
    requestId: newId(),
    licenseId: ids[1] as string,
    reason: "=cmd|' /C calc'!A0",
  });
  const { text } = await exported(clients, {});
  const from = "2026-11-22T10:00:00Z,2027-11-22T10:00:00Z,3,year,";
  expect(text).toBe(
    `${header}` +
      `${ids[1]},nile,trading,gold,1,,,9,${from}` +
      `,"{""order"":""A \\""17\\""""}",suspended,'=cmd|' /C calc'!A0,,,,,,2026-11-22T10:00:00Z,,\r\n` +
      `${ids[0]},nile,trading,gold,1,,,9,${from},"{""order"":""A \\""17\\""""}",active,,,,,,,2026-11-22T10:00:00Z,,\r\n`,
  );
  const { text: jsonl } = await exported(clients, { format: BulkFormat.JSONL });
  expect(JSON.parse(jsonl.split("\n")[0] ?? "")).toMatchObject({
    license_id: ids[1],
    seats: "9",
    status: "LICENSE_STATUS_SUSPENDED",
    status_reason: "=cmd|' /C calc'!A0",
  });
});

test("an empty tenant's export is a header", async () => {
  const clients = await newTenant();
  expect((await exported(clients, {})).text).toBe(header);
  expect((await exported(clients, { format: BulkFormat.JSONL })).text).toBe("");
});

describe("a selection", () => {
  test("by product, plan, versions, status, customers and ids", async () => {
    const clients = await newTenant();
    const columns = "license_id,customer_id,product,plan,valid_from,valid_until,status,seats";
    const id = (last: number) => `01930000-0000-7000-8000-00000000000${last}`;
    await imported(clients, "customer_id,name\ncairo,Cairo\n", BulkKind.CUSTOMERS, BulkFormat.CSV);
    const rows = [
      `${id(1)},nile,trading,gold,2026-01-01T00:00:00Z,,active,`,
      `${id(2)},nile,trading,standard,2020-01-01T00:00:00Z,,active,`,
      `${id(3)},cairo,trading,gold,2026-01-01T00:00:00Z,,suspended,`,
      `${id(4)},cairo,trading,,2026-01-01T00:00:00Z,2030-01-01T00:00:00Z,active,5`,
    ];
    await imported(clients, [columns, ...rows].join("\n"), BulkKind.LICENSES, BulkFormat.CSV);
    const selected = async (selection: object) => {
      const { text } = await exported(clients, { selection: selection as never, format: BulkFormat.JSONL });
      return text.split("\n").flatMap((line) => (line ? [Number(JSON.parse(line).license_id.at(-1))] : []));
    };
    expect(await selected({})).toEqual([1, 2, 3, 4]);
    expect(await selected({ product: "trading", plan: "gold" })).toEqual([1, 3]);
    expect(await selected({ product: "trading", plan: "gold", planVersions: [2] })).toEqual([]);
    expect(await selected({ statuses: [LicenseStatus.EXPIRED] })).toEqual([2]);
    expect(await selected({ statuses: [LicenseStatus.ACTIVE], customerIds: ["cairo"] })).toEqual([4]);
    expect(await selected({ licenseIds: [id(3), id(2)] })).toEqual([2, 3]);
    await expect(selected({ plan: "gold" })).rejects.toMatchObject({ reason: "INVALID_FIELD" });
    const customers = { kind: BulkKind.CUSTOMERS, selection: { product: "trading" } as never };
    await expect(exported(clients, customers)).rejects.toMatchObject({ reason: "INVALID_FIELD" });
  });
});

describe("a resume token", () => {
  test("goes on behind the last message that was kept: the file is the same", async () => {
    const clients = await newTenant();
    const rows = Array.from({ length: 900 }, (_, index) => `c-${String(index).padStart(4, "0")},${"x".repeat(190)}`);
    await imported(clients, ["customer_id,name", ...rows].join("\n"), BulkKind.CUSTOMERS, BulkFormat.CSV);
    const wanted = { kind: BulkKind.CUSTOMERS };
    const whole = await exported(clients, wanted);
    expect(whole.messages).toBeGreaterThan(2);
    let text = "";
    for (let resumeToken = ""; ; ) {
      const piece = await exported(clients, { ...wanted, resumeToken }, 1);
      text += piece.text;
      ({ resumeToken } = piece);
      if (resumeToken === whole.resumeToken) break;
    }
    expect(text).toBe(whole.text);
    expect((await exported(clients, { ...wanted, resumeToken: whole.resumeToken })).text).toBe("");
  });

  test("goes on behind what a reader took who was cut off for taking nothing", async () => {
    const impatient = await startHarness({ slowAfterMs: 20 });
    try {
      const clients = await seedTenant(impatient, "acme", { customer: false });
      await inTenant(impatient.database.databases, "acme", (tx) =>
        sql`INSERT INTO customer (tenant_id, customer_id, name, email, industry, domain, employee_count, created_at)
            SELECT 'acme', 'many-' || n, 'Many', n || '@example.com', '', '', 0, now() FROM generate_series(1, 5000) AS n
        `.execute(tx),
      );
      const wanted = { kind: BulkKind.CUSTOMERS, format: BulkFormat.JSONL };
      let text = "";
      let resumeToken = "";
      let cuts = 0;
      for (let done = false; !done && cuts < 20; ) {
        try {
          for await (const message of clients.bulk.export({ ...wanted, resumeToken })) {
            text += Buffer.from(message.data).toString();
            ({ resumeToken } = message);
            // Longer than it may take nothing. Later it is cut off only where this machine stands still for as long.
            if (cuts === 0) await delay(300);
          }
          done = true;
        } catch (error) {
          expect(error).toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "SUBSCRIBER_TOO_SLOW" });
          cuts++;
        }
      }
      expect(cuts).toBeGreaterThan(0);
      const rows = text.trimEnd().split("\n");
      expect(new Set(rows.map((row) => JSON.parse(row).customer_id)).size).toBe(5_000);
      expect(rows).toHaveLength(5_000);
    } finally {
      await impatient.stop();
    }
  });

  test("is refused for another export, another tenant, or when it is none", async () => {
    const [clients, other] = [await newTenant(), await newTenant()];
    const { resumeToken } = await exported(clients, {});
    for (const call of [
      exported(other, { resumeToken }),
      exported(clients, { resumeToken, format: BulkFormat.JSONL }),
      exported(clients, { resumeToken, selection: { product: "trading" } as never }),
      exported(clients, { resumeToken: "nonsense" }),
    ]) {
      await expect(call).rejects.toMatchObject({ reason: "INVALID_FIELD", violations: [{ field: "resume_token" }] });
    }
  });
});

test("an export shows nothing of another tenant, and needs the scope of what it shows", async () => {
  const [victim, other] = [await newTenant(), await newTenant()];
  const { license } = await victim.licenses.provisionLicense({
    requestId: newId(),
    customerId: "nile",
    product: "trading",
    plan: "gold",
    metadata: { mark: "the-victims" },
  });
  const selection = { licenseIds: [license?.licenseId as string], customerIds: ["nile"] } as never;
  expect((await exported(other, { selection })).text).toBe(header);
  expect((await exported(victim, { selection })).text).toContain("the-victims");
  await expect(exported(harness.as(victim.tenant, "product"), {})).rejects.toMatchObject({ reason: "SCOPE_MISSING" });
});

describe("what is exported and imported elsewhere is exported there as the same", () => {
  const start = Date.parse("2026-11-22T10:00:00Z");
  const days = (least: number, most: number) =>
    fc.integer({ min: least, max: most }).map((count) => new Date(start + count * 86_400_000 + 123));
  const texts = fc.oneof(
    fc.string({ unit: "grapheme", maxLength: 20 }),
    fc.constantFrom("=1+1", "'=x", "''", '"', "a,b", "a\nb\r\n", " x ", "-5", "\t", "@a", "'"),
  );
  const stored = texts.filter((text) => !text.includes("\0") && text.isWellFormed());
  const customers = fc.uniqueArray(
    fc.record({
      customerId: fc.stringMatching(/^[!-~]{1,20}$/).filter((id) => id !== "nile"),
      name: stored.filter((name) => name !== ""),
      industry: stored,
      employeeCount: fc.nat(10_000_000),
      domain: fc.constantFrom("", "a.example"),
      email: fc.constantFrom("", "A@x.example", "+a@x.example"),
    }),
    { selector: ({ customerId }) => customerId, minLength: 1, maxLength: 6 },
  );
  const licenses = fc.array(
    fc.record({
      holder: fc.nat(),
      plan: fc.constantFrom("gold", "trial", "standard", ""),
      from: days(-900, 100),
      until: days(101, 900),
      seats: fc.constantFrom(undefined, 0, 7),
      metadata: fc.dictionary(
        stored.filter((key) => key !== "" && key !== "__proto__"),
        stored,
        { maxKeys: 3 },
      ),
      deed: fc.constantFrom(
        "",
        "suspend",
        "revoke",
        "cancel",
        "cancel_at_end",
        "past_due",
        "grace",
        "unpaid",
        "unlimited",
        "granted",
      ),
      reason: stored,
      addOns: fc.constantFrom<{ addOn: string; quantity: number; price?: { currency: string; amountMinor: bigint } }[]>(
        [],
        [
          { addOn: "fixed", quantity: 3 },
          { addOn: "agreed", quantity: 1, price: { currency: "USD", amountMinor: 99n } },
        ],
      ),
    }),
    { maxLength: 8 },
  );

  /** Provisions licenses and does to each what its course says. */
  async function live(
    clients: Clients & { readonly tenant: string },
    wanted: readonly LicenseCourse[],
    holders: string[],
  ) {
    const billing = harness.as(clients.tenant, "mesh").licenses;
    for (const { holder, plan, from, until, seats, metadata, deed, reason, addOns } of wanted) {
      const bare = plan === "" ? { features: ["egx_access"], seats: seats ?? 1 } : {};
      const { license } = await clients.licenses.provisionLicense({
        requestId: newId(),
        customerId: holders[holder % holders.length] as string,
        product: "trading",
        plan,
        validFrom: timestampFromDate(from),
        validUntil: timestampFromDate(until),
        ...(seats !== undefined && { seats }),
        metadata,
        ...bare,
        addOns: plan === "gold" ? addOns : [],
      });
      const of = { requestId: newId(), licenseId: license?.licenseId as string, reason };
      const graceUntil = timestampFromDate(new Date(start + 5 * 86_400_000));
      const deeds: Readonly<Record<string, () => Promise<unknown>>> = {
        suspend: () => clients.licenses.suspendLicense(of),
        revoke: () => clients.licenses.revokeLicense(of),
        cancel: () => clients.licenses.cancelLicense(of),
        cancel_at_end: () => clients.licenses.cancelLicense({ ...of, atEnd: true }),
        past_due: () => billing.setPaymentStanding({ ...of, standing: 2 }),
        grace: () => billing.setPaymentStanding({ ...of, standing: 3, graceUntil }),
        unpaid: () => billing.setPaymentStanding({ ...of, standing: 4 }),
        granted: () =>
          clients.licenses.activateFeature({
            ...of,
            feature: "egx_access",
            configuration: '{"a":["b"]}',
            onBehalfOf: "=ada",
            expiresAt: graceUntil,
          }),
        unlimited: () =>
          clients.licenses.updateLicense({ ...of, updateMask: { paths: ["seats", "grace_days"] }, graceDays: 9 }),
      };
      // What its status does not allow is not done.
      await deeds[deed]?.().catch((error: unknown) =>
        expect(error).toMatchObject({ code: expect.stringMatching(/FAILED_PRECONDITION|INVALID_ARGUMENT/) }),
      );
    }
  }
  type LicenseCourse = Parameters<Parameters<typeof licenses.map>[0]>[0][number];

  test.each([BulkFormat.CSV, BulkFormat.JSONL])("format %d", async (format) => {
    await fc.assert(
      fc.asyncProperty(customers, licenses, async (organisations, courses) => {
        const here = await newTenant();
        for (const customer of organisations) {
          await here.customers.createCustomer({ requestId: newId(), ...customer });
        }
        await live(
          here,
          courses,
          organisations.map(({ customerId }) => customerId),
        );
        const files = await Promise.all(
          [BulkKind.CUSTOMERS, BulkKind.LICENSES].map((kind) => exported(here, { kind, format })),
        );
        const there = await newTenant({ empty: true });
        for (const [index, kind] of [BulkKind.CUSTOMERS, BulkKind.LICENSES].entries()) {
          const { text } = files[index] as { text: string };
          await imported(there, text, kind, format);
          expect((await exported(there, { kind, format })).text).toBe(text);
        }
      }),
      { numRuns: 12 },
    );
  });

  async function isTheSameElsewhere(here: Clients): Promise<string> {
    const { text } = await exported(here, {});
    const there = await newTenant();
    await imported(there, text, BulkKind.LICENSES, BulkFormat.CSV);
    expect((await exported(there, {})).text).toBe(text);
    return text;
  }

  test("a grant that outlived a change of plan because an add-on gives the feature too", async () => {
    const here = await newTenant();
    const gold = { requestId: newId(), customerId: "nile", product: "trading", plan: "gold" };
    const { license } = await here.licenses.provisionLicense(gold);
    const licenseId = license?.licenseId as string;
    await here.licenses.activateFeature({ requestId: newId(), licenseId, feature: "egx_access" });
    const addOns = { orders: [{ addOn: "free", quantity: 1 }] };
    await here.licenses.changePlan({ requestId: newId(), licenseId, plan: "standard", addOns });
    expect(await isTheSameElsewhere(here)).toContain('""feature"":""egx_access""');
  });

  test("a license that billing suspended and the clock cancelled then", async () => {
    const here = await newTenant();
    const { now } = harness.clock;
    const later = (days: number) => new Date(now.getTime() + days * 86_400_000);
    const { license } = await here.licenses.provisionLicense({
      requestId: newId(),
      customerId: "nile",
      product: "trading",
      plan: "gold",
      validUntil: timestampFromDate(later(10)),
    });
    const of = { requestId: newId(), licenseId: license?.licenseId as string, reason: "moves" };
    await here.licenses.cancelLicense({ ...of, atEnd: true });
    await harness.as(here.tenant, "mesh").licenses.setPaymentStanding({ ...of, standing: 4 });
    try {
      harness.clock.now = later(11);
      await harness.licensing.settle();
      expect(await isTheSameElsewhere(here)).toContain(",cancelled,moves,,");
    } finally {
      harness.clock.now = now;
    }
  });
});

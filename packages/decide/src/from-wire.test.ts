import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "@jest/globals";
import {
  Enforcement,
  LicenseType,
  LimitWindow,
  ProductCatalogSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { EntitlementUsageSchema } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { toCatalog, toSnapshot, toUsage } from "./from-wire.ts";

describe("toSnapshot", () => {
  test("says in the words of the domain what the wire says", () => {
    const wire = create(EntitlementSnapshotSchema, {
      tenantId: "tradsys",
      customerId: "nile-brokers",
      version: 7n,
      licenses: [
        {
          licenseId: "l1",
          product: "trading",
          plan: "standard",
          planVersion: 3,
          type: LicenseType.STANDARD,
          status: LicenseStatus.PAST_DUE,
          features: ["basic_trading"],
          limits: [
            { metric: "users", maximum: 50n, window: LimitWindow.GAUGE, enforcement: Enforcement.SOFT },
            { metric: "orders", maximum: -1n, window: LimitWindow.PER_SECOND },
            { metric: "exports", window: LimitWindow.PER_DAY, enforcement: Enforcement.HARD },
          ],
          addOns: [{ addOn: "extra-tb", version: 2, quantity: 3, price: { currency: "USD", amountMinor: 1n } }],
          validFrom: timestampFromMs(1_000),
          validUntil: timestampFromMs(2_000),
          graceDays: 7,
          endedAt: timestampFromMs(1_500),
          grants: [
            { feature: "egx_access", expiresAt: timestampFromMs(1_700), configuration: '{"venues": 3}' },
            { feature: "reports" },
          ],
        },
        { licenseId: "l2", product: "trading", validFrom: timestampFromMs(1_000) },
      ],
    });
    expect(toSnapshot(wire)).toEqual({
      tenant: "tradsys",
      customerId: "nile-brokers",
      version: 7n,
      licenses: [
        {
          id: "l1",
          product: "trading",
          plan: "standard",
          planVersion: 3,
          type: "STANDARD",
          status: "PAST_DUE",
          features: new Set(["basic_trading"]),
          grants: new Map([
            ["egx_access", { expiresAtMs: 1_700, configuration: '{"venues": 3}' }],
            ["reports", { expiresAtMs: undefined, configuration: "" }],
          ]),
          limits: [
            { metric: "users", maximum: 50n, window: "GAUGE", enforcement: "SOFT" },
            { metric: "orders", maximum: undefined, window: "PER_SECOND", enforcement: "HARD" },
            { metric: "exports", maximum: undefined, window: "PER_DAY", enforcement: "HARD" },
          ],
          addOns: [{ addOn: "extra-tb", version: 2, quantity: 3 }],
          validFromMs: 1_000,
          validUntilMs: 2_000,
          graceDays: 7,
          endedAtMs: 1_500,
        },
        expect.objectContaining({
          id: "l2",
          plan: undefined,
          planVersion: 0,
          limits: [],
          addOns: [],
          validUntilMs: undefined,
          endedAtMs: undefined,
        }),
      ],
    });
  });

  test.each([0, 99])("the status %i, unset or of a newer contract, allows nothing", (status) => {
    const wire = create(EntitlementSnapshotSchema, { licenses: [{ status: status as LicenseStatus }] });
    expect(toSnapshot(wire).licenses[0]?.status).toBe("SUSPENDED");
  });
});

describe("toUsage", () => {
  const startMs = Date.parse("2030-06-01T00:00:00Z");
  const windowStart = timestampFromMs(startMs);

  test("keeps the counters by metric, and none that could not end", () => {
    const wire = create(EntitlementUsageSchema, {
      customerId: "nile-brokers",
      levels: [
        { metric: "api_calls", window: LimitWindow.PER_DAY, windowStart, used: "12" },
        { metric: "api_calls", window: LimitWindow.PER_MONTH, windowStart, used: "40.5", licenseId: "l1" },
        { metric: "exports", window: LimitWindow.LIFETIME, used: "0" },
        { metric: "exports", window: LimitWindow.PER_DAY, used: "5" },
        { metric: "exports", window: LimitWindow.GAUGE, windowStart, used: "5" },
        { metric: "exports", window: 99 as LimitWindow, windowStart, used: "5" },
      ],
    });
    expect(toUsage(wire, 7)).toEqual({
      levels: new Map([
        [
          "api_calls",
          [
            { window: "PER_DAY", licenseId: undefined, windowStartMs: startMs, used: "12" },
            { window: "PER_MONTH", licenseId: "l1", windowStartMs: startMs, used: "40.5" },
          ],
        ],
        ["exports", [{ window: "LIFETIME", licenseId: undefined, windowStartMs: undefined, used: "0" }]],
      ]),
      asOfMs: 7,
    });
  });

  test.each(["", "-1", "1e9", "many"])("refuses %j, naming the metric", (used) => {
    const wire = create(EntitlementUsageSchema, {
      levels: [{ metric: "exports", window: LimitWindow.LIFETIME, used }],
    });
    expect(() => toUsage(wire, 0)).toThrow(/metric exports/);
  });
});

test("toCatalog keeps each feature with its behaviour", () => {
  const wire = create(ProductCatalogSchema, {
    tenantId: "tradsys",
    product: "trading",
    version: 3n,
    features: [
      { feature: "basic_trading", reduceOnly: true, failMode: { mode: { case: "closed", value: true } } },
      { feature: "egx_access", failMode: { mode: { case: "graceSeconds", value: 60 } } },
      { feature: "reports" },
    ],
  });
  expect(toCatalog(wire)).toEqual({
    tenant: "tradsys",
    product: "trading",
    version: 3n,
    features: new Map([
      ["basic_trading", { reduceOnly: true, failGraceMs: 0 }],
      ["egx_access", { reduceOnly: false, failGraceMs: 60_000 }],
      ["reports", { reduceOnly: false, failGraceMs: 300_000 }],
    ]),
  });
});

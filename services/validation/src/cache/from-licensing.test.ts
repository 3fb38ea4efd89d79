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
import { toCatalog, toSnapshot } from "./from-licensing.ts";

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
          type: LicenseType.STANDARD,
          status: LicenseStatus.PAST_DUE,
          features: ["basic_trading"],
          limits: [
            { metric: "users", maximum: 50n, window: LimitWindow.GAUGE, enforcement: Enforcement.SOFT },
            { metric: "orders", maximum: -1n, window: LimitWindow.PER_SECOND },
            { metric: "exports", window: LimitWindow.PER_DAY, enforcement: Enforcement.HARD },
          ],
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
          validFromMs: 1_000,
          validUntilMs: 2_000,
          graceDays: 7,
          endedAtMs: 1_500,
        },
        expect.objectContaining({
          id: "l2",
          plan: undefined,
          limits: [],
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

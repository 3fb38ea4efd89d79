import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "@jest/globals";
import { ProductCatalogSchema } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { EntitlementUsageSchema } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import fc from "fast-check";
import type { Catalog, License, Limit, Snapshot, Usage, UsageLevel } from "./entitlement.ts";
import { toCatalog, toSnapshot, toUsage } from "./from-wire.ts";
import { catalogToWire, snapshotToWire, usageToWire } from "./to-wire.ts";

const anyCode = fc.stringMatching(/^[a-z0-9][a-z0-9_.-]{0,12}$/);
/** From 1970 to the year 9999, which is what a timestamp can say. */
const anyMs = fc.integer({ min: 0, max: Date.parse("9999-12-31T23:59:59Z") });
const maybeMs = fc.option(anyMs, { nil: undefined });
const anyLimit = fc.record<Limit>({
  metric: anyCode,
  maximum: fc.option(fc.bigInt(0n, 2n ** 63n - 1n), { nil: undefined }),
  window: fc.constantFrom("GAUGE", "PER_SECOND", "PER_DAY", "PER_MONTH", "LIFETIME"),
  enforcement: fc.constantFrom("HARD", "SOFT"),
});
const anyLicense = fc.record<License>({
  id: fc.uuid(),
  type: fc.constantFrom("TRIAL", "STANDARD", "ENTERPRISE", "CUSTOM"),
  product: anyCode,
  plan: fc.option(anyCode, { nil: undefined }),
  planVersion: fc.nat(),
  status: fc.constantFrom("PENDING", "ACTIVE", "PAST_DUE", "GRACE", "SUSPENDED", "EXPIRED", "CANCELLED", "REVOKED"),
  features: fc.array(fc.oneof(anyCode, fc.constant("*"))).map((codes) => new Set(codes)),
  grants: fc
    .array(fc.tuple(anyCode, fc.record({ expiresAtMs: maybeMs, configuration: fc.constantFrom("", '{"venues":3}') })))
    .map((grants) => new Map(grants)),
  limits: fc.array(anyLimit),
  addOns: fc.array(fc.record({ addOn: anyCode, version: fc.nat(), quantity: fc.nat() })),
  validFromMs: anyMs,
  validUntilMs: maybeMs,
  graceDays: fc.nat(),
  endedAtMs: maybeMs,
  cancelsAtMs: maybeMs,
  unpaidGraceUntilMs: maybeMs,
});
const anySnapshot = fc.record<Snapshot>({
  tenant: anyCode,
  customerId: fc.string({ minLength: 1, unit: "grapheme" }),
  version: fc.bigInt(0n, 2n ** 63n - 1n),
  licenses: fc.array(anyLicense, { maxLength: 4 }),
});
const anyFeature = fc.record({
  reduceOnly: fc.boolean(),
  failGraceMs: fc.nat(100_000).map((seconds) => seconds * 1_000),
});
const anyCatalog = fc.record<Catalog>({
  tenant: anyCode,
  product: anyCode,
  version: fc.bigInt(0n, 2n ** 63n - 1n),
  features: fc.array(fc.tuple(anyCode, anyFeature)).map((features) => new Map(features)),
});
const licenseId = fc.option(fc.uuid(), { nil: undefined });
const used = fc.tuple(fc.nat(), fc.nat(999)).map(([whole, part]) => `${whole}.${part}`);
const anyLevel = fc.oneof(
  fc.record<UsageLevel>({ window: fc.constantFrom("PER_DAY", "PER_MONTH"), licenseId, windowStartMs: anyMs, used }),
  fc.record<UsageLevel>({ window: fc.constant("LIFETIME"), licenseId, windowStartMs: fc.constant(undefined), used }),
);
const anyUsage = fc.record<Usage>({
  levels: fc.array(fc.tuple(anyCode, fc.array(anyLevel, { minLength: 1 }))).map((levels) => new Map(levels)),
  asOfMs: anyMs,
});

describe("what is sent", () => {
  test("of a snapshot is read as the same snapshot", () => {
    fc.assert(
      fc.property(anySnapshot, (snapshot) => {
        const bytes = toBinary(EntitlementSnapshotSchema, snapshotToWire(snapshot));
        expect(toSnapshot(fromBinary(EntitlementSnapshotSchema, bytes))).toEqual(snapshot);
      }),
    );
  });

  test("of usage is read as the same usage", () => {
    fc.assert(
      fc.property(anyUsage, fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }), (usage, version) => {
        const bytes = toBinary(EntitlementUsageSchema, usageToWire({ customerId: "c", version, ...usage }));
        const read = fromBinary(EntitlementUsageSchema, bytes);
        expect(read).toMatchObject({ customerId: "c", version });
        expect(toUsage(read, usage.asOfMs)).toEqual(usage);
        expect(read.asOf && timestampMs(read.asOf)).toBe(usage.asOfMs);
      }),
    );
  });

  test("of a catalogue is read as the same catalogue", () => {
    fc.assert(
      fc.property(anyCatalog, (catalog) => {
        const bytes = toBinary(ProductCatalogSchema, catalogToWire(catalog));
        expect(toCatalog(fromBinary(ProductCatalogSchema, bytes))).toEqual(catalog);
      }),
    );
  });
});

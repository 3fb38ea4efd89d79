import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  Enforcement,
  type FailModeSchema,
  LicenseType,
  type LimitSchema,
  LimitWindow,
  type ProductCatalog,
  ProductCatalogSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import {
  type EntitlementSnapshot,
  EntitlementSnapshotSchema,
} from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { type LicenseSchema, LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  type EntitlementUsage,
  EntitlementUsageSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Catalog, License, Limit, Snapshot, Usage } from "./entitlement.ts";

/**
 * A snapshot in the form in which it travels: all that decides, and nothing else. `toSnapshot` makes the same of it again.
 * What the domain does not know is absent: the tenant's notes, prices, seats, who did what when.
 */
export function snapshotToWire({ tenant, customerId, version, licenses }: Snapshot): EntitlementSnapshot {
  return create(EntitlementSnapshotSchema, {
    tenantId: tenant,
    customerId,
    version,
    licenses: licenses.map((license) => licenseToWire(license, customerId)),
  });
}

/** A product's catalogue in the form in which it travels; `toCatalog` makes the same of it again. Its name is absent. */
export function catalogToWire({ tenant, product, version, features }: Catalog): ProductCatalog {
  return create(ProductCatalogSchema, {
    tenantId: tenant,
    product,
    version,
    features: Array.from(features, ([feature, { reduceOnly, failGraceMs }]) => ({
      feature,
      reduceOnly,
      failMode: failModeToWire(failGraceMs),
    })),
  });
}

/** What a customer has used in the form in which it travels; `toUsage` makes the same of it again. */
export function usageToWire({
  customerId,
  version,
  levels,
  asOfMs,
}: Usage & { readonly customerId: string; readonly version: bigint }): EntitlementUsage {
  return create(EntitlementUsageSchema, {
    customerId,
    version,
    asOf: timestampFromMs(asOfMs),
    levels: Array.from(levels, ([metric, counters]) =>
      counters.map(({ window, licenseId = "", windowStartMs, used }) => {
        return { metric, window: LimitWindow[window], licenseId, windowStart: toTimestamp(windowStartMs), used };
      }),
    ).flat(),
  });
}

function failModeToWire(failGraceMs: number): MessageInitShape<typeof FailModeSchema> {
  if (failGraceMs === 0) return { mode: { case: "closed", value: true } };
  return { mode: { case: "graceSeconds", value: failGraceMs / 1_000 } };
}

function licenseToWire(license: License, customerId: string): MessageInitShape<typeof LicenseSchema> {
  return {
    licenseId: license.id,
    customerId,
    type: LicenseType[license.type],
    product: license.product,
    plan: license.plan ?? "",
    planVersion: license.planVersion,
    status: LicenseStatus[license.status],
    features: [...license.features],
    grants: Array.from(license.grants, ([feature, { expiresAtMs, configuration }]) => {
      return { feature, expiresAt: toTimestamp(expiresAtMs), configuration };
    }),
    limits: license.limits.map(limitToWire),
    addOns: license.addOns.map(({ addOn, version, quantity }) => ({ addOn, version, quantity })),
    validFrom: toTimestamp(license.validFromMs),
    validUntil: toTimestamp(license.validUntilMs),
    graceDays: license.graceDays,
    endedAt: toTimestamp(license.endedAtMs),
    cancelsAt: toTimestamp(license.cancelsAtMs),
    unpaidGraceUntil: toTimestamp(license.unpaidGraceUntilMs),
  };
}

function limitToWire({ metric, maximum, window, enforcement }: Limit): MessageInitShape<typeof LimitSchema> {
  return { metric, maximum, window: LimitWindow[window], enforcement: Enforcement[enforcement] };
}

function toTimestamp(ms: number | undefined): Timestamp | undefined {
  return ms === undefined ? undefined : timestampFromMs(ms);
}

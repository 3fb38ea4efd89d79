import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Enforcement, LicenseType, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import {
  type EntitlementSnapshot,
  EntitlementSnapshotSchema,
} from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";

/** The tenant of all customers here. */
export const tenant = "tradsys";
const product = "trading";
const features = [
  "basic_trading",
  "advanced_orders",
  "algorithmic_trading",
  "egx_access",
  "adx_access",
  "crypto_trading",
  "stock_trading",
  "forex_trading",
  "risk_management",
  "portfolio_analytics",
  "reporting",
  "api_access",
] as const;

const plans = [
  { plan: "trial", type: LicenseType.TRIAL, features: features.slice(0, 4), users: 5n },
  { plan: "standard", type: LicenseType.STANDARD, features: features.slice(0, 10), users: 50n },
  { plan: "enterprise", type: LicenseType.ENTERPRISE, features: ["*"], users: undefined },
] as const;

/** The id of a customer; as long as such ids are. */
export function customerId(index: number): string {
  return `customer-${String(index).padStart(8, "0")}`;
}

/** The snapshot of a customer with one ordinary license: features and limits of one of three plans, dates of its own. */
export function snapshotOf(index: number, version = 7n, status = LicenseStatus.ACTIVE): EntitlementSnapshot {
  const { plan, type, features, users } = plans[index % plans.length] ?? plans[0];
  const limit = { window: LimitWindow.GAUGE, enforcement: Enforcement.HARD };
  return create(EntitlementSnapshotSchema, {
    tenantId: tenant,
    customerId: customerId(index),
    version,
    issuedAt: timestampFromMs(Date.now()),
    licenses: [
      {
        licenseId: `0197a000-0000-7000-8000-${index.toString(16).padStart(12, "0")}`,
        customerId: customerId(index),
        product,
        plan,
        planVersion: 1,
        type,
        status,
        features: [...features],
        limits: [
          users === undefined ? { metric: "users", ...limit } : { metric: "users", maximum: users, ...limit },
          { metric: "orders_per_second", maximum: 1_000n, window: LimitWindow.PER_SECOND, enforcement: 1 },
          { metric: "api_calls", maximum: 10_000n, window: LimitWindow.PER_DAY, enforcement: 1 },
        ],
        validFrom: timestampFromMs(Date.UTC(2020, 0, 1) + index * 60_000),
        validUntil: timestampFromMs(Date.UTC(2040, 0, 1) + index * 60_000),
      },
    ],
  });
}

/** The same as it comes through the log and lies in the shared cache. */
export function snapshotBytes(index: number, version = 7n): Uint8Array {
  return toBinary(EntitlementSnapshotSchema, snapshotOf(index, version));
}

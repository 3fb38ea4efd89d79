import type { Selectable } from "kysely";
import type { DecidedStatus, License } from "../domain/license.ts";
import type { Cycle, LicenseType, Limit, Plan, UsagePrice } from "../domain/terms.ts";
import type { License as LicenseTable, PlanVersion } from "./schema.ts";

// jsonb shapes; big integers are strings there because JSON numbers lose them.
type LimitJson = { metric: string; maximum: string | null; window: Limit["window"]; enforcement: Limit["enforcement"] };
type UsagePriceJson = { metric: string; includedPerMonth: string; currency: string; decimal: string };

/** Limits as they are stored. */
export function limitsToJson(limits: readonly Limit[]): string {
  return JSON.stringify(
    limits.map(
      ({ metric, maximum, window, enforcement }): LimitJson => ({
        metric,
        maximum: maximum === undefined ? null : maximum.toString(),
        window,
        enforcement,
      }),
    ),
  );
}

/** Limits out of their stored form. */
function limitsFromJson(stored: unknown): Limit[] {
  return (stored as LimitJson[]).map(({ metric, maximum, window, enforcement }) => ({
    metric,
    ...(maximum !== null && { maximum: BigInt(maximum) }),
    window,
    enforcement,
  }));
}

/** Usage prices as they are stored. */
export function usagePricesToJson(prices: readonly UsagePrice[]): string {
  return JSON.stringify(
    prices.map((price): UsagePriceJson => ({ ...price, includedPerMonth: price.includedPerMonth.toString() })),
  );
}

function usagePricesFromJson(stored: unknown): UsagePrice[] {
  return (stored as UsagePriceJson[]).map((price) => ({ ...price, includedPerMonth: BigInt(price.includedPerMonth) }));
}

/** The columns that {@link licenseFromRow} reads: a license's own and, with `plan_` before them, its plan version's. */
export type LicenseRow = Selectable<LicenseTable> & { plan_features: string[] | null; plan_limits: unknown };

/** A license with its effective features and limits: its own, or its plan version's. */
export function licenseFromRow(row: LicenseRow): License {
  return {
    licenseId: row.license_id,
    customerId: row.customer_id,
    product: row.product,
    ...(row.plan !== null && { plan: { code: row.plan, version: row.plan_version as number } }),
    type: row.type as LicenseType,
    decidedStatus: row.status as DecidedStatus,
    statusReason: row.status_reason,
    features: row.features ?? row.plan_features ?? [],
    limits: limitsFromJson(row.limits ?? row.plan_limits),
    ...(row.seats !== null && { seats: row.seats }),
    validFrom: row.valid_from,
    ...(row.valid_until !== null && { validUntil: row.valid_until }),
    graceDays: row.grace_days,
    ...(row.billing_cycle !== null && { billingCycle: row.billing_cycle as Cycle }),
    metadata: row.metadata as Record<string, string>,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    ...(row.ended_at !== null && { endedAt: row.ended_at }),
  };
}

/** A plan in a version, out of the two rows that hold it. */
export function planFromRow(row: Selectable<PlanVersion> & { name: string; latest_version: number }): Plan {
  return {
    product: row.product,
    plan: row.plan,
    name: row.name,
    version: row.version,
    latestVersion: row.latest_version,
    terms: {
      type: row.type as LicenseType,
      features: row.features,
      limits: limitsFromJson(row.limits),
      ...(row.price_currency !== null && {
        price: {
          currency: row.price_currency,
          amountMinor: row.price_amount_minor as bigint,
          cycle: row.price_cycle as Cycle,
        },
      }),
      usagePrices: usagePricesFromJson(row.usage_prices),
      termDays: row.term_days,
      ...(row.seats !== null && { seats: row.seats }),
    },
    publishedAt: row.published_at,
  };
}

import type { Selectable } from "kysely";
import { type GivenTerms, withAddOns } from "../domain/effective-terms.ts";
import type { Grant } from "../domain/grant.ts";
import type { DecidedStatus, License, LicenseStatus } from "../domain/license.ts";
import type { Cycle, LicenseType, Limit, Plan, UsagePrice } from "../domain/terms.ts";
import { heldAddOnsFromJson, heldAddOnsToJson } from "./add-on-mapping.ts";
import type { License as LicenseTable, Plan as PlanTable, PlanVersion } from "./schema.ts";

// jsonb shapes; big integers are strings there because JSON numbers lose them, and times are RFC 3339.
type GrantJson = Omit<Grant, "activatedAt" | "expiresAt"> & { activatedAt: string; expiresAt: string | null };
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

function grantsToJson(grants: readonly Grant[]): string {
  return JSON.stringify(
    grants.map(
      ({ activatedAt, expiresAt, ...rest }): GrantJson => ({
        ...rest,
        activatedAt: activatedAt.toISOString(),
        expiresAt: expiresAt?.toISOString() ?? null,
      }),
    ),
  );
}

function grantsFromJson(stored: unknown): Grant[] {
  return (stored as GrantJson[]).map(({ activatedAt, expiresAt, ...rest }) => ({
    ...rest,
    activatedAt: new Date(activatedAt),
    ...(expiresAt !== null && { expiresAt: new Date(expiresAt) }),
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
export type LicenseRow = Omit<Selectable<LicenseTable>, "due_at"> & {
  plan_features: string[] | null;
  plan_limits: unknown;
  plan_attributes: unknown;
};

/** A license with what it gives in effect: by its own terms or its plan version's, and by its add-ons. */
export function licenseFromRow(row: LicenseRow): License {
  const base: GivenTerms = {
    features: row.features ?? row.plan_features ?? [],
    limits: limitsFromJson(row.limits ?? row.plan_limits),
    ...(row.seats !== null && { seats: row.seats }),
  };
  return {
    licenseId: row.license_id,
    customerId: row.customer_id,
    product: row.product,
    ...(row.plan !== null && { plan: { code: row.plan, version: row.plan_version as number } }),
    type: row.type as LicenseType,
    decidedStatus: row.status as DecidedStatus,
    statusReason: row.status_reason,
    suspendedByBilling: row.suspended_by_billing,
    ...(row.unpaid_grace_until !== null && { unpaidGraceUntil: row.unpaid_grace_until }),
    ...(row.cancels_at !== null && { cancellation: { at: row.cancels_at, reason: row.cancel_reason } }),
    ...withAddOns(base, heldAddOnsFromJson(row.add_ons)),
    grants: grantsFromJson(row.grants),
    validFrom: row.valid_from,
    ...(row.valid_until !== null && { validUntil: row.valid_until }),
    graceDays: row.grace_days,
    ...(row.billing_cycle !== null && { billingCycle: row.billing_cycle as Cycle }),
    autoRenew: row.auto_renew,
    metadata: row.metadata as Record<string, string>,
    attributes: (row.plan_attributes ?? {}) as Record<string, string>,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    ...(row.ended_at !== null && { endedAt: row.ended_at }),
    revision: row.revision,
    ...(row.told_status !== null && {
      told: {
        status: row.told_status as LicenseStatus,
        ...(row.told_notice_days !== null && { noticeDays: row.told_notice_days }),
        renewal: row.told_renewal,
      },
    }),
  };
}

/** The columns of a license that can change. A bare license has features and limits of its own. */
export function changeableColumns(license: License, dueAt: Date | undefined) {
  const bare = license.plan === undefined;
  const { cancellation, told } = license;
  return {
    customer_id: license.customerId,
    plan: license.plan?.code ?? null,
    plan_version: license.plan?.version ?? null,
    type: license.type,
    status: license.decidedStatus,
    status_reason: license.statusReason,
    suspended_by_billing: license.suspendedByBilling,
    unpaid_grace_until: license.unpaidGraceUntil ?? null,
    cancels_at: cancellation?.at ?? null,
    cancel_reason: cancellation?.reason ?? "",
    features: bare ? [...license.base.features] : null,
    limits: bare ? limitsToJson(license.base.limits) : null,
    seats: license.base.seats ?? null,
    add_ons: heldAddOnsToJson(license.addOns),
    grants: grantsToJson(license.grants),
    valid_from: license.validFrom,
    valid_until: license.validUntil ?? null,
    grace_days: license.graceDays,
    billing_cycle: license.billingCycle ?? null,
    auto_renew: license.autoRenew,
    metadata: JSON.stringify(license.metadata),
    updated_at: license.updatedAt,
    ended_at: license.endedAt ?? null,
    revision: license.revision,
    told_status: told?.status ?? null,
    told_notice_days: told?.noticeDays ?? null,
    told_renewal: told?.renewal ?? false,
    due_at: dueAt ?? null,
  };
}

/** A plan in a version, out of the two rows that hold it. */
export function planFromRow(row: Selectable<PlanVersion> & Omit<Selectable<PlanTable>, keyof PlanVersion>): Plan {
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
      attributes: row.attributes as Record<string, string>,
      grantable: row.grantable,
    },
    publishedAt: row.published_at,
    ...(row.customer_id !== null && { customerId: row.customer_id }),
    ...(row.retired_at !== null && { retiredAt: row.retired_at }),
    revision: row.revision,
  };
}

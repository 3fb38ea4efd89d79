import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  Cycle,
  Enforcement,
  type FailMode,
  type FailModeSchema,
  type FeatureSchema,
  KeyFormat,
  LicenseType,
  type Limit as LimitMessage,
  type LimitSchema,
  LimitWindow,
  type PlanSchema,
  type PlanTerms as PlanTermsMessage,
  type PlanTermsSchema,
  type ProductCatalogSchema,
  type ProductSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import type { CredentialChangedSchema } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import type { CustomerSchema } from "@licet/contracts/licet/licensing/v1/customer_pb";
import type { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import type { LicenseHistoryEntrySchema } from "@licet/contracts/licet/licensing/v1/license_history_pb";
import { type LicenseAddOnSchema, LicenseSchema, LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  InstanceType,
  SeatMode,
  type SeatPolicy as SeatPolicyMessage,
  type SeatPolicySchema,
  SeatsBelowUse,
} from "@licet/contracts/licet/licensing/v1/seat_pb";
import { ApiKeyRole, type ApiKeySchema, type TenantSchema } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { HeldAddOn } from "../domain/add-on.ts";
import { scopesOfKey } from "../domain/api-key.ts";
import { anonymous, grantsAt } from "../domain/grant.ts";
import { type License, type LicenseStatus as Status, statusAt } from "../domain/license.ts";
import type { KeyStyle, KeyFormat as Style } from "../domain/license-key.ts";
import type { Product } from "../domain/product.ts";
import type { Role } from "../domain/roles.ts";
import type { SeatPolicy } from "../domain/seats.ts";
import type * as terms from "../domain/terms.ts";
import type { Catalog, Feature } from "../store/catalog.ts";
import type { Customer } from "../store/customers.ts";
import type { StoredHistoryEntry } from "../store/history.ts";
import type { Snapshot } from "../store/snapshots.ts";
import type { ApiKey, Tenant } from "../store/tenants.ts";

/** "Availability over strictness" (product.md), where a product says nothing else. */
const DEFAULT_FAIL_GRACE_SECONDS = 300;

/** A domain word and its enum value differ only in their case: `past_due`, `PAST_DUE`. */
export function toEnum<E extends Record<string, string | number>, K extends string>(
  type: E,
  word: K,
): E[Uppercase<K> & keyof E] {
  return type[word.toUpperCase() as Uppercase<K> & keyof E];
}

/** The word of an enum value, the inverse of {@link toEnum}. */
export function fromEnum<K extends string>(type: Record<number, string>, value: number): K {
  return (type[value] as string).toLowerCase() as K;
}

/** A time that may be absent. */
export function optionalTimestamp(date: Date | undefined): Timestamp | undefined {
  return date && timestampFromDate(date);
}

/** The wire's form of a tenant. */
export function tenantToProto(tenant: Tenant): MessageInitShape<typeof TenantSchema> {
  return { tenantId: tenant.tenantId, name: tenant.name, createdAt: timestampFromDate(tenant.createdAt) };
}

/** The role that a request names. */
export function roleFromProto(role: ApiKeyRole): Role {
  return fromEnum<Role>(ApiKeyRole, role);
}

/** The wire's form of an API key. */
export function apiKeyToProto(key: ApiKey): MessageInitShape<typeof ApiKeySchema> {
  return {
    keyId: key.keyId,
    name: key.name,
    role: toEnum(ApiKeyRole, key.role),
    scopes: scopesOfKey(key),
    createdAt: timestampFromDate(key.createdAt),
    expiresAt: optionalTimestamp(key.expiresAt),
    revokedAt: optionalTimestamp(key.revokedAt),
    lastUsedAt: optionalTimestamp(key.lastUsedAt),
    replacedBy: key.replacedBy ?? "",
  };
}

/** What the other services need to check a presented key. */
export function credentialToProto(key: ApiKey): MessageInitShape<typeof CredentialChangedSchema> {
  return {
    tenantId: key.tenantId,
    keyId: key.keyId,
    secretHash: key.secretHash,
    role: toEnum(ApiKeyRole, key.role),
    scopes: scopesOfKey(key),
    version: key.version,
    expiresAt: optionalTimestamp(key.expiresAt),
    revokedAt: optionalTimestamp(key.revokedAt),
  };
}

/** The wire's form of a product. */
export function productToProto(product: Product): MessageInitShape<typeof ProductSchema> {
  return {
    product: product.product,
    name: product.name,
    graceDays: product.graceDays,
    ...(product.keyStyle && {
      keyFormat: toEnum(KeyFormat, product.keyStyle.format),
      keyPrefix: product.keyStyle.prefix,
    }),
    offlineDays: product.offlineDays,
    seatPolicy: seatPolicyToProto(product.seatPolicy),
    failMode: failModeToProto(product.failGraceSeconds),
    createdAt: timestampFromDate(product.createdAt),
    etag: product.revision.toString(),
  };
}

/** How a request says that a product's keys look; undefined when it has none. */
export function keyStyleFromProto(request: { keyFormat: KeyFormat; keyPrefix: string }): KeyStyle | undefined {
  const format = keyFormatFromProto(request.keyFormat);
  return format && { format, prefix: request.keyPrefix };
}

/** How a request wants seats to be held; node-locked, without a lease and with all types of instances when absent. */
export function seatPolicyFromProto(message: SeatPolicyMessage | undefined): SeatPolicy {
  return {
    mode: message?.mode === SeatMode.FLOATING ? "floating" : "node_locked",
    ...(message && message.leaseSeconds > 0 && { leaseSeconds: message.leaseSeconds }),
    rules: {
      types: (message?.instanceTypes ?? []).map((type) => fromEnum(InstanceType, type)),
      ignoreWww: message?.ignoreWww ?? false,
      ignorePath: message?.ignorePath ?? false,
      keepHostnameCase: message?.keepHostnameCase ?? false,
      minMatchingComponents: message?.minMatchingComponents ?? 0,
    },
    belowUse: message?.belowUse === SeatsBelowUse.BLOCK ? "block" : "refuse",
  };
}

function seatPolicyToProto({
  mode,
  leaseSeconds,
  rules,
  belowUse,
}: SeatPolicy): MessageInitShape<typeof SeatPolicySchema> {
  const { types, ...told } = rules;
  return {
    mode: toEnum(SeatMode, mode),
    leaseSeconds: leaseSeconds ?? 0,
    instanceTypes: types.map((type) => toEnum(InstanceType, type)),
    ...told,
    belowUse: toEnum(SeatsBelowUse, belowUse),
  };
}

/** The format of keys that a request names; undefined when it names none. */
export function keyFormatFromProto(format: KeyFormat): Style | undefined {
  return format === KeyFormat.UNSPECIFIED ? undefined : fromEnum<Style>(KeyFormat, format);
}

/**
 * The seconds for which a feature stays allowed while deciders are cut off; 0 stands for `closed`.
 *
 * @param otherwise - what holds where nothing is said
 */
export function failModeFromProto(message: FailMode | undefined, otherwise = DEFAULT_FAIL_GRACE_SECONDS): number {
  switch (message?.mode.case) {
    case "closed":
      return 0;
    case "graceSeconds":
      return message.mode.value;
    default:
      return otherwise;
  }
}

function failModeToProto(graceSeconds: number): MessageInitShape<typeof FailModeSchema> {
  return {
    mode: graceSeconds === 0 ? { case: "closed", value: true } : { case: "graceSeconds", value: graceSeconds },
  };
}

/** The wire's form of a feature. */
export function featureToProto(feature: Feature): MessageInitShape<typeof FeatureSchema> {
  return {
    product: feature.product,
    feature: feature.feature,
    name: feature.name,
    reduceOnly: feature.reduceOnly,
    failMode: failModeToProto(feature.failGraceSeconds),
    failModeInherited: feature.failModeInherited,
    createdAt: timestampFromDate(feature.createdAt),
    etag: feature.revision.toString(),
  };
}

/** The wire's form of a product's catalogue. */
export function catalogToProto(catalog: Catalog): MessageInitShape<typeof ProductCatalogSchema> {
  return {
    tenantId: catalog.tenantId,
    product: catalog.product,
    name: catalog.name,
    version: catalog.version,
    features: catalog.features.map(({ feature, reduceOnly, failGraceSeconds }) => ({
      feature,
      reduceOnly,
      failMode: failModeToProto(failGraceSeconds),
    })),
  };
}

/** The billing cycle or price cycle that a request names; undefined when it names none. */
export function cycleFromProto(cycle: Cycle): terms.Cycle | undefined {
  return cycle === Cycle.UNSPECIFIED ? undefined : fromEnum<terms.Cycle>(Cycle, cycle);
}

/** Limits of a request: -1 and absent both mean unlimited, and enforcement is hard where it is unspecified. */
export function limitsFromProto(limits: readonly LimitMessage[]): terms.Limit[] {
  return limits.map(({ metric, maximum, window, enforcement }) => ({
    metric,
    ...(maximum !== undefined && maximum >= 0n && { maximum }),
    window: fromEnum<terms.LimitWindow>(LimitWindow, window),
    enforcement: enforcement === Enforcement.SOFT ? "soft" : "hard",
  }));
}

/** The wire's form of a limit. */
export function limitToProto(limit: terms.Limit): MessageInitShape<typeof LimitSchema> {
  return {
    metric: limit.metric,
    ...(limit.maximum !== undefined && { maximum: limit.maximum }),
    window: toEnum(LimitWindow, limit.window),
    enforcement: toEnum(Enforcement, limit.enforcement),
  };
}

/**
 * A plan's terms out of a request that the contract's rules have passed.
 *
 * @throws ServiceError INVALID_ARGUMENT when they, or a usage price's unit price, are absent
 */
export function termsFromProto(message: PlanTermsMessage | undefined): terms.PlanTerms {
  if (!message) throw invalidArgument("terms", "is required");
  const cycle = cycleFromProto(message.priceCycle);
  return {
    type: fromEnum<terms.LicenseType>(LicenseType, message.type),
    features: message.features,
    limits: limitsFromProto(message.limits),
    ...(message.price && cycle && { price: { ...message.price, cycle } }),
    usagePrices: message.usagePrices.map(({ metric, includedPerMonth, unitPrice }, index) => {
      if (!unitPrice) throw invalidArgument(`terms.usage_prices[${index}].unit_price`, "is required");
      return { metric, includedPerMonth, currency: unitPrice.currency, decimal: unitPrice.decimal };
    }),
    termDays: message.termDays,
    attributes: message.attributes,
    ...(message.seats !== undefined && { seats: message.seats }),
    grantable: message.grantableFeatures,
  };
}

function termsToProto(value: terms.PlanTerms): MessageInitShape<typeof PlanTermsSchema> {
  return {
    type: toEnum(LicenseType, value.type),
    features: [...value.features],
    limits: value.limits.map(limitToProto),
    ...(value.price && {
      price: { currency: value.price.currency, amountMinor: value.price.amountMinor },
      priceCycle: toEnum(Cycle, value.price.cycle),
    }),
    usagePrices: value.usagePrices.map(({ metric, includedPerMonth, currency, decimal }) => ({
      metric,
      includedPerMonth,
      unitPrice: { currency, decimal },
    })),
    termDays: value.termDays,
    attributes: { ...value.attributes },
    ...(value.seats !== undefined && { seats: value.seats }),
    grantableFeatures: [...value.grantable],
  };
}

/** The wire's form of a plan in a version. */
export function planToProto(plan: terms.Plan): MessageInitShape<typeof PlanSchema> {
  return {
    product: plan.product,
    plan: plan.plan,
    name: plan.name,
    version: plan.version,
    latestVersion: plan.latestVersion,
    terms: termsToProto(plan.terms),
    publishedAt: timestampFromDate(plan.publishedAt),
    customerId: plan.customerId ?? "",
    retiredAt: optionalTimestamp(plan.retiredAt),
    etag: plan.revision.toString(),
  };
}

/** The wire's form of a customer. */
export function customerToProto(customer: Customer): MessageInitShape<typeof CustomerSchema> {
  return {
    customerId: customer.customerId,
    name: customer.name,
    email: customer.email,
    domain: customer.domain,
    industry: customer.industry,
    employeeCount: customer.employeeCount,
    createdAt: timestampFromDate(customer.createdAt),
  };
}

/** The wire's form of a license with its status and grants at `now`. */
export function licenseToProto(license: License, now: Date): MessageInitShape<typeof LicenseSchema> {
  return licenseWithStatus({ ...license, grants: grantsAt(license.grants, now) }, statusAt(license, now));
}

/** The wire's form of a license as others than its tenant may see it: without notes, persons and prices, as of `now`. */
export function foreignLicenseToProto(license: License, now: Date): MessageInitShape<typeof LicenseSchema> {
  const shown = licenseToProto({ ...license, grants: anonymous(license.grants), addOns: [] }, now);
  return { ...shown, metadata: {}, statusReason: "" };
}

/** The wire's form of a license with a status that it has at some time, and all its grants. */
export function licenseWithStatus(license: License, status: Status): MessageInitShape<typeof LicenseSchema> {
  return { ...withStatus(license, toEnum(LicenseStatus, status)), etag: license.revision.toString() };
}

function withStatus(license: License, status: LicenseStatus): MessageInitShape<typeof LicenseSchema> {
  return {
    licenseId: license.licenseId,
    customerId: license.customerId,
    product: license.product,
    plan: license.plan?.code ?? "",
    planVersion: license.plan?.version ?? 0,
    addOns: license.addOns.map(heldAddOnToProto),
    type: toEnum(LicenseType, license.type),
    status,
    features: [...license.features],
    limits: license.limits.map(limitToProto),
    ...(license.seats !== undefined && { seats: license.seats }),
    validFrom: timestampFromDate(license.validFrom),
    validUntil: optionalTimestamp(license.validUntil),
    graceDays: license.graceDays,
    ...(license.billingCycle && { billingCycle: toEnum(Cycle, license.billingCycle) }),
    metadata: { ...license.metadata },
    attributes: { ...license.attributes },
    statusReason: license.statusReason,
    createdAt: timestampFromDate(license.createdAt),
    updatedAt: timestampFromDate(license.updatedAt),
    endedAt: optionalTimestamp(license.endedAt),
    autoRenew: license.autoRenew,
    cancelsAt: optionalTimestamp(license.cancellation?.at),
    unpaidGraceUntil: optionalTimestamp(license.unpaidGraceUntil),
    grants: license.grants.map(({ activatedAt, expiresAt, ...rest }) => ({
      ...rest,
      activatedAt: timestampFromDate(activatedAt),
      expiresAt: optionalTimestamp(expiresAt),
    })),
  };
}

function heldAddOnToProto({ addOn, version, quantity, price }: HeldAddOn): MessageInitShape<typeof LicenseAddOnSchema> {
  return {
    addOn,
    version,
    quantity,
    ...(price && {
      price: { currency: price.currency, amountMinor: price.amountMinor },
      priceCycle: toEnum(Cycle, price.cycle),
    }),
  };
}

/** The wire's form of an entry of the history. */
export function historyEntryToProto(entry: StoredHistoryEntry): MessageInitShape<typeof LicenseHistoryEntrySchema> {
  return {
    eventId: entry.eventId,
    customerId: entry.customerId,
    version: entry.version,
    cause: entry.cause,
    licenseId: entry.licenseId ?? "",
    keyId: entry.keyId ?? "",
    feature: entry.feature ?? "",
    actor: entry.actor,
    reason: entry.reason,
    ipAddress: entry.ipAddress,
    userAgent: entry.userAgent,
    ...(entry.before && { before: fromBinary(LicenseSchema, entry.before) }),
    ...(entry.after && { after: fromBinary(LicenseSchema, entry.after) }),
    occurredAt: timestampFromDate(entry.occurredAt),
    effectiveAt: timestampFromDate(entry.effectiveAt),
    noticeDays: entry.noticeDays,
  };
}

/**
 * A snapshot for deciders: its licenses carry the decided status and all stored grants, the clock is theirs. Etags,
 * reasons of status changes and who granted stay out: they decide nothing, and a snapshot must not grow when licenses are
 * suspended or revoked.
 */
export function snapshotToProto(snapshot: Snapshot): MessageInitShape<typeof EntitlementSnapshotSchema> {
  return {
    tenantId: snapshot.tenantId,
    customerId: snapshot.customerId,
    version: snapshot.version,
    licenses: snapshot.licenses.map((license) => ({
      ...withStatus({ ...license, grants: anonymous(license.grants) }, toEnum(LicenseStatus, license.decidedStatus)),
      statusReason: "",
    })),
    issuedAt: timestampFromDate(snapshot.issuedAt),
  };
}

/**
 * A time of a request, or undefined when it is absent.
 *
 * @throws ServiceError INVALID_ARGUMENT when it lies outside the years 1970 to 9999
 */
export function dateFromProto(field: string, timestamp: Timestamp | undefined): Date | undefined {
  if (!timestamp) return undefined;
  const date = timestampDate(timestamp);
  const year = date.getUTCFullYear();
  if (!(year >= 1970 && year <= 9999)) {
    throw invalidArgument(field, "must be a time between 1970-01-01T00:00:00Z and 9999-12-31T23:59:59Z");
  }
  return date;
}

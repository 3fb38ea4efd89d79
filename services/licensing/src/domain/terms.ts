import { invalidArgument } from "@licet/platform/errors";

/** The kind of deal; validation strategies go by it. */
export type LicenseType = "trial" | "standard" | "enterprise" | "custom";

/** The span that a price or a bill refers to. */
export type Cycle = "month" | "year";

/** The span over which a limit's metric counts. */
export type LimitWindow = "gauge" | "per_second" | "per_day" | "per_month" | "lifetime";

/** A bound on a metric: only above `maximum` violates. */
export interface Limit {
  metric: string;
  /** Absent: unlimited. */
  maximum?: bigint;
  window: LimitWindow;
  enforcement: "hard" | "soft";
}

/** The price of a metric beyond what a month includes. */
export interface UsagePrice {
  metric: string;
  includedPerMonth: bigint;
  /** ISO 4217. */
  currency: string;
  /** Major units per unit of the metric, as a decimal such as `0.0125`. */
  decimal: string;
}

/** A price for a month or a year. */
export interface Price {
  /** ISO 4217. */
  currency: string;
  amountMinor: bigint;
  cycle: Cycle;
}

/** What a version of a plan gives and costs; never changed once published. */
export interface PlanTerms {
  type: LicenseType;
  features: readonly string[];
  limits: readonly Limit[];
  /** Absent: free. */
  price?: Price;
  usagePrices: readonly UsagePrice[];
  /** How many days a license runs where it is not told otherwise; 0: one calendar year. */
  termDays: number;
  /** Absent: unlimited. */
  seats?: number;
  /** What else is promised, by code; nothing is decided by it. */
  attributes: Readonly<Record<string, string>>;
  /** The features that may be granted to a license beyond the plan; `*` alone means all of the product. */
  grantable: readonly string[];
}

/** A plan in one of its versions. */
export interface Plan {
  product: string;
  plan: string;
  name: string;
  version: number;
  latestVersion: number;
  terms: PlanTerms;
  publishedAt: Date;
  /** The only customer who can be given it; absent: all can. */
  customerId?: string;
  /** Since when no license gets it any more. */
  retiredAt?: Date;
  /** Raised by every change of the plan and by every new version; its text is the etag. */
  revision: bigint;
}

/**
 * Refuses features and limits that contradict themselves: `*` beside other features, or two limits on one metric and
 * window.
 *
 * @param at - the request's field that holds them, as a prefix such as `terms.`
 * @throws ServiceError INVALID_ARGUMENT that names the field
 */
export function checkFeaturesAndLimits(terms: Pick<PlanTerms, "features" | "limits">, at: "" | "terms."): void {
  checkAlone(`${at}features`, terms.features);
  firstRepeated(`${at}limits`, terms.limits, (limit) => `${limit.metric} ${limit.window}`);
}

/**
 * Refuses terms that contradict themselves, see {@link checkFeaturesAndLimits}; also `*` beside other features that may be
 * granted, two prices of one metric, and
 * prices in several currencies.
 *
 * @throws ServiceError INVALID_ARGUMENT that names the field
 */
export function checkTerms(terms: PlanTerms): void {
  checkFeaturesAndLimits(terms, "terms.");
  checkAlone("terms.grantable_features", terms.grantable);
  firstRepeated("terms.usage_prices", terms.usagePrices, (price) => price.metric);
  const currencies = new Set(terms.usagePrices.map((price) => price.currency));
  if (terms.price) currencies.add(terms.price.currency);
  if (currencies.size > 1) {
    throw invalidArgument(
      "terms.usage_prices",
      `must be in one currency with the price, not in ${[...currencies].join(" and ")}`,
    );
  }
}

/** The one currency of a plan's prices; undefined where it has none. */
export function currencyOf({ price, usagePrices }: PlanTerms): string | undefined {
  return price?.currency ?? usagePrices[0]?.currency;
}

function checkAlone(field: string, features: readonly string[]): void {
  if (!features.includes("*") || features.length === 1) return;
  throw invalidArgument(field, "holds * beside other features; * alone means all of them");
}

function firstRepeated<T>(field: string, items: readonly T[], keyOf: (item: T) => string): void {
  const seen = new Set<string>();
  for (const [index, item] of items.entries()) {
    const key = keyOf(item);
    if (seen.has(key)) throw invalidArgument(`${field}[${index}]`, `repeats ${key}; one of each is allowed`);
    seen.add(key);
  }
}

/**
 * When a license that begins at `validFrom` ends by its plan's term: after `termDays` spans of 24 hours, or after one
 * calendar year in UTC (29 February becomes 28 February).
 */
export function termEnd(validFrom: Date, termDays: number): Date {
  if (termDays > 0) return new Date(validFrom.getTime() + termDays * 86_400_000);
  const end = new Date(validFrom);
  end.setUTCFullYear(end.getUTCFullYear() + 1);
  if (end.getUTCMonth() !== validFrom.getUTCMonth()) end.setUTCDate(0);
  return end;
}

import fc from "fast-check";
import type { Facts, Question } from "../decide.ts";
import type { Catalog, Grant, License, LicenseStatus, Limit, LimitWindow, Usage, UsageLevel } from "../entitlement.ts";

/** A day, in milliseconds. */
export const day = 86_400_000;
/** Where a day and a month begin, so that every boundary lies close by. */
export const origin = Date.parse("2030-06-01T00:00:00Z");

/** Two products: in one, features have policies of their own, and reduce what is open. */
export const catalogs: ReadonlyMap<string, Catalog> = new Map(
  [
    {
      tenant: "tradsys",
      product: "trading",
      version: 1n,
      features: new Map([
        ["basic_trading", { reduceOnly: true, failGraceMs: 0 }],
        ["egx_access", { reduceOnly: false, failGraceMs: 60_000 }],
      ]),
    },
    {
      tenant: "tradsys",
      product: "research",
      version: 1n,
      features: new Map([["reports", { reduceOnly: true, failGraceMs: 300_000 }]]),
    },
  ].map((catalog): [string, Catalog] => [catalog.product, catalog]),
);

const statuses: readonly LicenseStatus[] = [
  "PENDING",
  "ACTIVE",
  "PAST_DUE",
  "GRACE",
  "SUSPENDED",
  "EXPIRED",
  "CANCELLED",
  "REVOKED",
];
const windows: readonly LimitWindow[] = ["GAUGE", "PER_SECOND", "PER_DAY", "PER_MONTH", "LIFETIME"];
const features = ["basic_trading", "egx_access", "reports", "teleport"] as const;
const metrics = ["users", "orders"] as const;
const licenseIds = ["l0", "l1", "l2", "l3"] as const;

const anyDay = fc.integer({ min: -3, max: 3 }).map((days) => origin + days * day);
/** Mostly nothing: a date that ends a license would end most of them. */
const rarely = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });

/** A moment at a boundary, right before or right behind one. */
export const anyNow: fc.Arbitrary<number> = fc
  .tuple(anyDay, fc.constantFrom(-1, 0, 1, day / 2))
  .map(([at, beside]) => at + beside);

const anyLimit = fc.record<Limit>({
  metric: fc.constantFrom(...metrics),
  maximum: fc.option(fc.bigInt({ min: 0n, max: 4n }), { nil: undefined }),
  window: fc.constantFrom(...windows),
  enforcement: fc.constantFrom("HARD", "SOFT"),
});
const anyGrants = fc
  .dictionary(
    fc.constantFrom(...features),
    fc.record<Grant>({ expiresAtMs: fc.option(anyDay, { nil: undefined }), configuration: fc.constant("{}") }),
  )
  .map((record) => new Map(Object.entries(record)));

/** A license; its id is only a placeholder for the place where it stands. */
const anyUnnamedLicense = fc.record<License>({
  id: fc.constant("l9"),
  type: fc.constant("STANDARD"),
  product: fc.constantFrom("trading", "research", "unlisted"),
  plan: fc.option(fc.constant("standard"), { nil: undefined }),
  planVersion: fc.constant(1),
  status: fc.oneof(fc.constant<LicenseStatus>("ACTIVE"), fc.constantFrom(...statuses)),
  features: fc.uniqueArray(fc.constantFrom(...features, "*")).map((codes) => new Set<string>(codes)),
  grants: anyGrants,
  limits: fc.uniqueArray(anyLimit, { maxLength: 4, selector: ({ metric, window }) => metric + window }),
  addOns: fc.array(fc.constant({ addOn: "extra", version: 1, quantity: 2 }), { maxLength: 1 }),
  validFromMs: anyDay,
  validUntilMs: fc.option(anyDay, { nil: undefined }),
  graceDays: fc.integer({ min: 0, max: 2 }),
  endedAtMs: rarely(anyDay),
  cancelsAtMs: rarely(anyDay),
  unpaidGraceUntilMs: rarely(anyDay),
});

/** A license by itself, with an id that none of {@link anyLicenses} has. */
export const anyLicense: fc.Arbitrary<License> = anyUnnamedLicense;

/** The licenses of a customer; undefined: the customer is unknown. */
export const anyLicenses: fc.Arbitrary<readonly License[] | undefined> = fc.option(
  fc
    .array(anyUnnamedLicense, { maxLength: 4 })
    .map((licenses) => licenses.map((license, index) => ({ ...license, id: licenseIds[index] ?? "" }))),
  { nil: undefined },
);

/** A question about what the licenses may have, with values for some limits. */
export const anyQuestion: fc.Arbitrary<Question> = fc.record({
  customerId: fc.constant("nile-brokers"),
  feature: fc.constantFrom(...features),
  product: rarely(fc.constantFrom("trading", "research", "nothing")),
  values: fc
    .dictionary(
      fc.constantFrom(...metrics, "orders/per_day", "users/per_month", "users/gauge", "region"),
      fc.constantFrom("-1", "-0.5", "0", "0.5", "1", "2", "3", "3.5", "4", "4.0", "5", "005.000"),
      { maxKeys: 3 },
    )
    .map((record) => new Map(Object.entries(record))),
});

/** A counter; its window began at the start of a day or month close by. */
const anyLevel: fc.Arbitrary<UsageLevel & { metric: string }> = fc
  .record({
    metric: fc.constantFrom(...metrics),
    window: fc.constantFrom("PER_DAY" as const, "PER_MONTH" as const, "LIFETIME" as const),
    licenseId: fc.option(fc.constantFrom(...licenseIds), { nil: undefined }),
    windowStartMs: anyDay,
    used: fc.constantFrom("0", "0.5", "1", "1.5", "2", "3", "4", "7.000"),
  })
  .map((level) => ({ ...level, windowStartMs: startOf(level.window, level.windowStartMs) }));

function startOf(window: UsageLevel["window"], ms: number): number | undefined {
  if (window === "LIFETIME") return undefined;
  const date = new Date(ms);
  return window === "PER_DAY" ? ms : Date.UTC(date.getUTCFullYear(), date.getUTCMonth());
}

/** What was used; undefined: nobody knows. */
export const anyUsage: fc.Arbitrary<Usage | undefined> = fc.option(
  fc
    .uniqueArray(anyLevel, {
      maxLength: 8,
      selector: ({ metric, window, licenseId }) => `${metric} ${window} ${licenseId}`,
    })
    .map((counters) => ({
      levels: Map.groupBy(counters, ({ metric }) => metric),
      asOfMs: origin - 5 * day,
    })),
  { nil: undefined, freq: 4 },
);

/** All that may be known, also for so long that it is too old for some features. */
export const anyFacts: fc.Arbitrary<Facts> = fc.record({
  snapshot: anyLicenses.map(
    (licenses) => licenses && { tenant: "tradsys", customerId: "nile-brokers", version: 7n, licenses },
  ),
  catalogs: fc.constant(catalogs),
  usage: anyUsage,
  overdueMs: fc.constantFrom(Number.NEGATIVE_INFINITY, -1, 0, 59_999, 60_000, 299_999, 300_000),
});

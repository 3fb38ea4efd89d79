import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import {
  Enforcement,
  type FailMode,
  LicenseType,
  LimitWindow,
  type ProductCatalog,
  type Limit as WireLimit,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import type { EntitlementSnapshot } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus, type License as WireLicense } from "@licet/contracts/licet/licensing/v1/license_pb";
import type { EntitlementUsage } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import {
  type Catalog,
  type CountedWindow,
  DEFAULT_FAIL_GRACE_MS,
  type License,
  type Limit,
  type Snapshot,
  type Usage,
  type UsageLevel,
} from "./entitlement.ts";

/** A snapshot as licensing publishes it, in the words of the domain. */
export function toSnapshot(wire: EntitlementSnapshot): Snapshot {
  return {
    tenant: wire.tenantId,
    customerId: wire.customerId,
    version: wire.version,
    licenses: wire.licenses.map(toLicense),
  };
}

/** A product's catalogue as licensing publishes it, in the words of the domain. */
export function toCatalog(wire: ProductCatalog): Catalog {
  return {
    tenant: wire.tenantId,
    product: wire.product,
    version: wire.version,
    features: new Map(
      wire.features.map(({ feature, reduceOnly, failMode }) => [
        feature,
        { reduceOnly, failGraceMs: toFailGraceMs(failMode) },
      ]),
    ),
  };
}

/**
 * What a customer has used, in the words of the domain. Counters of windows that only a newer contract has, and such as say
 * nothing of when their window began, are left out: they could never end.
 *
 * @param asOfMs - `asOf` of the message by the decider's own clock, in epoch milliseconds
 * @throws {TypeError} naming the metric when a counter is no decimal.
 */
export function toUsage(wire: EntitlementUsage, asOfMs: number): Usage {
  const levels = new Map<string, UsageLevel[]>();
  for (const { metric, window, windowStart, licenseId, used } of wire.levels) {
    const counted = countedWindows.get(window);
    const windowStartMs = counted === "LIFETIME" ? undefined : toMs(windowStart);
    if (counted === undefined || (windowStartMs === undefined && counted !== "LIFETIME")) continue;
    if (!usedPattern.test(used)) {
      throw new TypeError(`used of the metric ${metric}: must be a decimal that is not negative, and is "${used}"`);
    }
    const level: UsageLevel = { window: counted, licenseId: licenseId || undefined, windowStartMs, used };
    levels.set(metric, [...(levels.get(metric) ?? []), level]);
  }
  return { levels, asOfMs };
}

const usedPattern = /^[0-9]+(\.[0-9]+)?$/;
const countedWindows: ReadonlyMap<LimitWindow, CountedWindow> = new Map([
  [LimitWindow.PER_DAY, "PER_DAY"],
  [LimitWindow.PER_MONTH, "PER_MONTH"],
  [LimitWindow.LIFETIME, "LIFETIME"],
]);

/** Without a mode, or with one that only a newer contract has, it is the default. */
function toFailGraceMs(wire: FailMode | undefined): number {
  switch (wire?.mode.case) {
    case "closed":
      return 0;
    case "graceSeconds":
      return wire.mode.value * 1_000;
    default:
      return DEFAULT_FAIL_GRACE_MS;
  }
}

function toLicense(wire: WireLicense): License {
  return {
    id: wire.licenseId,
    type: wordOf(LicenseType, wire.type, "CUSTOM"),
    product: wire.product,
    plan: wire.plan === "" ? undefined : wire.plan,
    planVersion: wire.planVersion,
    // A status that only a newer licensing service knows allows nothing; as with a suspended license, what may be reduced is.
    status: wordOf(LicenseStatus, wire.status, "SUSPENDED"),
    features: new Set(wire.features),
    grants: new Map(
      wire.grants.map(({ feature, expiresAt, configuration }) => [
        feature,
        { expiresAtMs: toMs(expiresAt), configuration },
      ]),
    ),
    limits: wire.limits.map(toLimit),
    addOns: wire.addOns.map(({ addOn, version, quantity }) => ({ addOn, version, quantity })),
    validFromMs: toMs(wire.validFrom) ?? 0,
    validUntilMs: toMs(wire.validUntil),
    graceDays: wire.graceDays,
    endedAtMs: toMs(wire.endedAt),
    cancelsAtMs: toMs(wire.cancelsAt),
    unpaidGraceUntilMs: toMs(wire.unpaidGraceUntil),
  };
}

function toLimit({ metric, maximum, window, enforcement }: WireLimit): Limit {
  return {
    metric,
    maximum: maximum === undefined || maximum < 0n ? undefined : maximum,
    window: wordOf(LimitWindow, window, "GAUGE"),
    enforcement: wordOf(Enforcement, enforcement, "HARD"),
  };
}

function toMs(time: Timestamp | undefined): number | undefined {
  return time && timestampMs(time);
}

type Word<E> = Exclude<Extract<keyof E, string>, "UNSPECIFIED">;

/** The name of an enum's number; `fallback` for none, and for one that only a newer contract has. */
function wordOf<E extends object>(type: E, number: number, fallback: Word<E>): Word<E> {
  // An enum maps both ways at run time, which its type does not say.
  const word = (type as Readonly<Record<number, string | undefined>>)[number];
  return word === undefined || word === "UNSPECIFIED" ? fallback : (word as Word<E>);
}

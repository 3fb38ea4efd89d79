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
import { type Catalog, DEFAULT_FAIL_GRACE_MS, type License, type Limit, type Snapshot } from "../domain/entitlement.ts";

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
    // A status that only a newer licensing service knows must not allow anything.
    status: wordOf(LicenseStatus, wire.status, "SUSPENDED"),
    features: new Set(wire.features),
    grants: new Map(
      wire.grants.map(({ feature, expiresAt, configuration }) => [
        feature,
        { expiresAtMs: toMs(expiresAt), configuration },
      ]),
    ),
    limits: wire.limits.map(toLimit),
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

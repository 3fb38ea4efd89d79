import { grantsAt } from "./grant.ts";
import { type License, statusAt } from "./license.ts";
import { permittedUntil } from "./license-key.ts";

/** A license and how long its product may go without asking. */
export interface OfflineLicense {
  readonly license: License;
  /** The product's. */
  readonly offlineDays: number;
}

/** Who signs for whom. */
export interface SigningContext {
  /** Names the installation. */
  readonly issuer: string;
  readonly tenant: string;
  readonly now: Date;
}

/**
 * The claims of a token key. `exp` is when the last of its licenses permits nothing any more, or the key's own end if
 * that is earlier; without ends there is none.
 */
export function keyClaims(
  { issuer, tenant, now }: SigningContext,
  key: { keyId: string; customerId: string; expiresAt?: Date },
  licenses: readonly OfflineLicense[],
) {
  const ends = licenses.map(({ license }) => permittedUntil(license)?.getTime() ?? Number.POSITIVE_INFINITY);
  const end = Math.min(Math.max(...ends), key.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY);
  return {
    iss: issuer,
    sub: key.customerId,
    aud: licenses.map(({ license }) => `${tenant}/${license.product}`),
    jti: key.keyId,
    iat: seconds(now),
    ...(Number.isFinite(end) && { exp: seconds(new Date(end)) }),
    licenses: licenses.map((held) => licenseClaim(held, now)),
  };
}

/**
 * The claims of a signed license: the license with its status now and its attributes, to be taken for true for so many
 * seconds. Token keys are without attributes: those are words for clients, and a key is to stay short.
 */
export function licenseClaims(
  { issuer, tenant, now }: SigningContext,
  claimsId: string,
  held: OfflineLicense,
  ttlSeconds: number,
) {
  const { license } = held;
  return {
    iss: issuer,
    sub: license.customerId,
    aud: `${tenant}/${license.product}`,
    jti: claimsId,
    iat: seconds(now),
    exp: seconds(now) + ttlSeconds,
    license: { ...licenseClaim(held, now), status: statusAt(license, now), attributes: license.attributes },
  };
}

/** Times are RFC 3339; `maximum` is a decimal or null (unlimited), as JSON numbers lose what exceeds 2^53. A grant
 * ends at its own time, or with the license. */
function licenseClaim({ license, offlineDays }: OfflineLicense, now: Date) {
  return {
    license_id: license.licenseId,
    product: license.product,
    plan: license.plan?.code ?? null,
    plan_version: license.plan?.version ?? null,
    type: license.type,
    features: license.features,
    limits: license.limits.map(({ metric, maximum, window, enforcement }) => ({
      metric,
      maximum: maximum === undefined ? null : maximum.toString(),
      window,
      enforcement,
    })),
    grants: grantsAt(license.grants, now).map(({ feature, expiresAt, configuration }) => ({
      feature,
      expires_at: expiresAt?.toISOString() ?? null,
      configuration: configuration === "" ? null : configuration,
    })),
    seats: license.seats ?? null,
    valid_from: license.validFrom.toISOString(),
    valid_until: license.validUntil?.toISOString() ?? null,
    grace_days: license.graceDays,
    ends_at: permittedUntil(license)?.toISOString() ?? null,
    offline_days: offlineDays,
  };
}

function seconds(date: Date): number {
  return Math.floor(date.getTime() / 1_000);
}

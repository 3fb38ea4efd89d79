import { type License, type LicenseStatus, statusAt } from "./license.ts";
import { type KeyStatus, type KeyTimes, keyStatusAt } from "./license-key.ts";

/** Why a key permits a product to run or does not; the contract's KeyReason describes each. */
export type KeyReason =
  | "permitted"
  | "malformed"
  | "mistyped"
  | "signature_wrong"
  | "unknown"
  | "wrong_brand"
  | "revoked"
  | "replaced"
  | "expired"
  | "product_not_included"
  | "license_not_yet_valid"
  | "license_suspended"
  | "license_expired"
  | "license_cancelled"
  | "license_revoked"
  | "seats_exhausted"
  | "not_activated";

/** What is known of a presented key: why nothing is, or what it is and what it proves for the product that asks. */
export type KeyFacts =
  | { readonly reading: "malformed" | "mistyped" | "signature_wrong" | "unknown" }
  | {
      readonly key: KeyTimes;
      /** Absent: the key's brand sells no such product. */
      readonly product?: { readonly offlineDays: number };
      /** Absent: the key proves none of the product. */
      readonly license?: License;
    };

/** The answer to a presented key. */
export interface KeyDecision {
  readonly reason: KeyReason;
  /** The reason in a sentence, for the product's user. */
  readonly message: string;
  readonly license?: License;
  readonly offlineDays?: number;
  readonly keyExpiresAt?: Date;
}

const ofKey: Readonly<Record<KeyStatus, KeyReason | undefined>> = {
  active: undefined,
  expired: "expired",
  replaced: "replaced",
  revoked: "revoked",
};

const ofLicense: Readonly<Record<LicenseStatus, KeyReason>> = {
  pending: "license_not_yet_valid",
  active: "permitted",
  past_due: "permitted",
  grace: "permitted",
  suspended: "license_suspended",
  expired: "license_expired",
  cancelled: "license_cancelled",
  revoked: "license_revoked",
};

/**
 * Whether a key permits a product to run: the first of these that speaks: the text, the brand, the key's own status,
 * what it proves, the license's status.
 */
export function decideKey(facts: KeyFacts, product: string, now: Date): KeyDecision {
  if ("reading" in facts) return { reason: facts.reading, message: sentence(facts.reading, product) };
  const { key, license } = facts;
  if (!facts.product) return { reason: "wrong_brand", message: sentence("wrong_brand", product) };
  const reason = ofKey[keyStatusAt(key, now)] ?? (license ? ofLicense[statusAt(license, now)] : "product_not_included");
  return {
    reason,
    message: sentence(reason, product),
    ...(license && { license }),
    offlineDays: facts.product.offlineDays,
    ...(key.expiresAt && { keyExpiresAt: key.expiresAt }),
  };
}

/** What a decision becomes where the key is good and seats decide otherwise. */
export function decideSeat(
  decision: KeyDecision,
  reason: "seats_exhausted" | "not_activated",
  product: string,
): KeyDecision {
  return { ...decision, reason, message: sentence(reason, product) };
}

function sentence(reason: KeyReason, product: string): string {
  const sentences: Readonly<Record<KeyReason, string>> = {
    permitted: `The key is good for ${product}.`,
    malformed: "This is not a license key: check that it was copied whole.",
    mistyped: "The key has a typo: compare it with the one you were given.",
    signature_wrong: "The key was changed, or was not issued here.",
    unknown: "The key is unknown.",
    wrong_brand: `The key is another brand's, which has no product ${product}.`,
    revoked: "The key was revoked.",
    replaced: "The key was replaced by a new one.",
    expired: "The key has expired.",
    product_not_included: `The key does not include ${product}.`,
    license_not_yet_valid: `The license of ${product} is not valid yet.`,
    license_suspended: `The license of ${product} is suspended.`,
    license_expired: `The license of ${product} has expired.`,
    license_cancelled: `The license of ${product} was cancelled.`,
    license_revoked: `The license of ${product} was revoked.`,
    seats_exhausted: `All seats of the license of ${product} are taken.`,
    not_activated: `This instance has no seat of the license of ${product}: activate it.`,
  };
  return sentences[reason];
}

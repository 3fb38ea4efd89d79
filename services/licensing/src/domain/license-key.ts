import { failure } from "../errors.ts";
import { type License, type LicenseStatus, phasesOf, statusAt } from "./license.ts";
import { readOpaqueKey } from "./opaque-key.ts";
import { readTokenKey } from "./token-key.ts";

/** How a key looks and what it can do; the contract's KeyFormat describes both. */
export type KeyFormat = "opaque" | "token";

/** How the keys of a product look. */
export interface KeyStyle {
  readonly format: KeyFormat;
  /** The mark of the brand, 2 to 8 capital letters. */
  readonly prefix: string;
}

/** A license key without its secret. */
export interface LicenseKey {
  keyId: string;
  customerId: string;
  format: KeyFormat;
  /** The mark of the brand that it begins with. */
  prefix: string;
  /** For people to tell keys apart. */
  hint: string;
  /** The licenses that it proves, at most one for each product. */
  licenses: readonly { product: string; licenseId: string }[];
  /** The signing key of a token key. */
  kid?: string;
  issuedAt: Date;
  /** From this moment on it is refused. */
  expiresAt?: Date;
  revokedAt?: Date;
  revokeReason: string;
  /** The id of the key that replaces it. */
  replacedBy?: string;
}

/** Where a key stands. */
export type KeyStatus = "active" | "expired" | "replaced" | "revoked";

/** What the status of a key follows from. */
export type KeyTimes = Pick<LicenseKey, "expiresAt" | "revokedAt" | "replacedBy">;

/** The status of a key at a time. A key that was replaced stays active for the overlap, which its expiry ends. */
export function keyStatusAt(key: KeyTimes, now: Date): KeyStatus {
  if (key.revokedAt) return "revoked";
  if (!key.expiresAt || now < key.expiresAt) return "active";
  return key.replacedBy ? "replaced" : "expired";
}

const permitting: ReadonlySet<LicenseStatus> = new Set(["pending", "active", "past_due", "grace"]);

/** Whether a license is in force or will be: what a token key says offline must be true for now. */
export function permits(license: License, now: Date): boolean {
  return permitting.has(statusAt(license, now));
}

/**
 * From when on a license permits nothing if nobody decides anything: the end of its grace, of the grace that billing
 * gave, or its cancellation, whichever comes first. Undefined: never. One that permits nothing now for what was decided
 * ends as it begins.
 */
export function permittedUntil(license: License): Date | undefined {
  const end = phasesOf(license).find(({ status }) => !permitting.has(status));
  return end && new Date(Math.max(end.from, license.validFrom.getTime()));
}

/**
 * Refuses to issue a key for a license that permits nothing.
 *
 * @throws ServiceError FAILED_PRECONDITION `KEY_CANNOT_HOLD`
 */
export function checkPermits(license: License, now: Date): void {
  if (permits(license, now)) return;
  const { licenseId } = license;
  throw failure("KEY_CANNOT_HOLD", `License ${licenseId} is ${statusAt(license, now)}; a key is for one in force.`);
}

/** A product as far as keys go. */
export interface KeyedProduct {
  readonly product: string;
  /** Absent: it has no keys. */
  readonly keyStyle?: KeyStyle;
}

/**
 * The style of a key for these licenses.
 *
 * @param licenses - at least one
 * @param products - the licenses' products
 * @throws ServiceError FAILED_PRECONDITION `PRODUCT_HAS_NO_KEYS`; `KEY_CANNOT_HOLD` when one key can't prove them all
 */
export function commonStyle(
  licenses: readonly Pick<License, "customerId" | "product">[],
  products: readonly KeyedProduct[],
): KeyStyle {
  if (new Set(licenses.map(({ customerId }) => customerId)).size > 1) {
    throw failure("KEY_CANNOT_HOLD", "One key is for the licenses of one customer; these are of several.");
  }
  if (new Set(licenses.map(({ product }) => product)).size < licenses.length) {
    throw failure("KEY_CANNOT_HOLD", "One key proves one license of each product; two of these are of one product.");
  }
  const styles = products.map((product) => styleOf(product));
  const [style] = styles;
  if (style === undefined) throw new Error("a key needs a license");
  if (styles.some(({ format, prefix }) => format !== style.format || prefix !== style.prefix)) {
    const told = products.map(({ product, keyStyle }) => `${product} ${keyStyle?.format} ${keyStyle?.prefix}`);
    throw failure("KEY_CANNOT_HOLD", `Keys of these products differ in format or prefix: ${told.join(", ")}.`);
  }
  return style;
}

function styleOf({ product, keyStyle }: KeyedProduct): KeyStyle {
  if (keyStyle) return keyStyle;
  throw failure("PRODUCT_HAS_NO_KEYS", `Product ${product} has no license keys: it has no key_format.`);
}

/**
 * Refuses a key that is not active, or that another one is replacing though it is still taken for the overlap.
 *
 * @throws ServiceError FAILED_PRECONDITION `KEY_NOT_IN_FORCE` with its `status`
 */
export function checkChangeable(key: LicenseKey, now: Date): void {
  const status = key.replacedBy ? "replaced" : keyStatusAt(key, now);
  if (status === "active") return;
  const instead = key.replacedBy ? `key ${key.replacedBy}, which replaces it` : "one that is active";
  throw failure("KEY_NOT_IN_FORCE", `Key ${key.keyId} is ${status}; use ${instead}.`, { status });
}

/**
 * Refuses to put a license under a key that can't prove it.
 *
 * @throws ServiceError FAILED_PRECONDITION `KEY_NOT_IN_FORCE`, `KEY_CANNOT_HOLD`, `PRODUCT_HAS_NO_KEYS`
 */
export function checkExtendable(
  key: LicenseKey,
  license: Pick<License, "customerId" | "product">,
  product: KeyedProduct,
  now: Date,
): void {
  checkChangeable(key, now);
  const style = styleOf(product);
  if (key.format === "token") {
    throw failure("KEY_CANNOT_HOLD", "A token key carries its licenses signed: issue a new key for all of them.");
  }
  if (key.customerId !== license.customerId) {
    throw failure("KEY_CANNOT_HOLD", `Key ${key.keyId} is for the licenses of another customer.`);
  }
  if (key.licenses.some((held) => held.product === license.product)) {
    throw failure("KEY_CANNOT_HOLD", `Key ${key.keyId} proves a license of product ${license.product} already.`);
  }
  if (key.licenses.length >= MAX_LICENSES_PER_KEY) {
    throw failure("KEY_CANNOT_HOLD", `Key ${key.keyId} proves ${MAX_LICENSES_PER_KEY} licenses, the most possible.`);
  }
  if (style.format !== key.format || style.prefix !== key.prefix) {
    const [wanted, has] = [style, key].map(({ format, prefix }) => `${format} ${prefix}`);
    throw failure("KEY_CANNOT_HOLD", `Keys of product ${license.product} are ${wanted}; key ${key.keyId} is ${has}.`);
  }
}

/** The contract allows as many in one IssueKey. */
const MAX_LICENSES_PER_KEY = 20;

/** What of a key's text people may see to tell it from others. */
export function hintOf({ format, prefix }: KeyStyle, key: string): string {
  // Behind the last group of an opaque key are a dash and the check character.
  return `${prefix}-…-${format === "opaque" ? key.slice(-6, -2) : key.slice(-4)}`;
}

/** What reading a key's text comes to: its form as it is stored, with the JWS of a token key, or what is wrong with it. */
export type KeyReading =
  | { readonly key: string; readonly jws?: string }
  | { readonly problem: "malformed" | "mistyped" };

/** Reads the text of a key of either format: only a token key has dots. */
export function readLicenseKey(text: string): KeyReading {
  return text.includes(".") ? readTokenKey(text) : readOpaqueKey(text);
}

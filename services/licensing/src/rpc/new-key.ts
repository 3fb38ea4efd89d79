import { randomBytes } from "node:crypto";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { Call } from "@licet/platform/rpc/call";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { keyClaims, type OfflineLicense } from "../domain/claims.ts";
import { hintOf, type KeyStyle, type LicenseKey, permits } from "../domain/license-key.ts";
import { newOpaqueKey, OPAQUE_KEY_BYTES } from "../domain/opaque-key.ts";
import { joinTokenKey, MAX_TOKEN_CHARACTERS } from "../domain/token-key.ts";
import { failure } from "../errors.ts";
import { recordLicenseChange } from "../history.ts";
import { sign } from "../signatures.ts";
import type { Signer } from "../signing-keys.ts";
import { getProduct } from "../store/catalog.ts";
import { raiseEntitlementVersion } from "../store/customers.ts";
import { countLicenseKeys, insertLicenseKey, licenseKeyPlace } from "../store/license-keys.ts";
import { getLicense } from "../store/licenses.ts";
import type { DB } from "../store/schema.ts";

/** Every key that a customer ever had is kept, so that it is told from an unknown one. */
const MAX_KEYS = 1_000;

/** What a new key is to be. */
export interface WantedKey {
  readonly customerId: string;
  readonly style: KeyStyle;
  /** What it proves; see {@link loadHeld}. */
  readonly held: readonly OfflineLicense[];
  readonly expiresAt?: Date;
}

/** Licenses with what their products say about keys, in the given order. */
export async function loadHeld(tx: Transaction<DB>, tenant: string, licenseIds: readonly string[]) {
  const held: (OfflineLicense & { readonly product: Awaited<ReturnType<typeof getProduct>> })[] = [];
  for (const licenseId of licenseIds) {
    const license = await getLicense(tx, tenant, licenseId);
    const product = await getProduct(tx, tenant, license.product);
    held.push({ license, product, offlineDays: product.offlineDays });
  }
  return held;
}

/**
 * Makes and stores a key, and appends that to the customer's history. The caller holds the customer row's lock.
 *
 * @param signer - signs a token key
 * @returns the key, its text and the entitlement version of the change
 * @throws ServiceError FAILED_PRECONDITION `TOO_MANY_KEYS`, `KEY_TOO_LARGE`; `KEY_CANNOT_HOLD` where a token key would
 *   say nothing that is true
 */
export async function newKey(
  ctx: Context,
  tx: Transaction<DB>,
  call: Call,
  signer: Signer,
  wanted: WantedKey,
): Promise<{ key: LicenseKey; secret: string; version: bigint }> {
  const { customerId, style, held, expiresAt } = wanted;
  if ((await countLicenseKeys(tx, call.tenant, customerId)) >= MAX_KEYS) {
    throw failure("TOO_MANY_KEYS", `Customer ${customerId} has had ${MAX_KEYS} keys, the most possible.`, {
      maximum: `${MAX_KEYS}`,
    });
  }
  const keyId = ctx.newId();
  const issuedAt = ctx.now();
  const secret =
    style.format === "opaque"
      ? newOpaqueKey(style.prefix, randomBytes(OPAQUE_KEY_BYTES))
      : await newTokenKey(ctx, call, signer, keyId, wanted);
  const key: LicenseKey = {
    keyId,
    customerId,
    format: style.format,
    prefix: style.prefix,
    hint: hintOf(style, secret),
    licenses: held.map(({ license: { product, licenseId } }) => ({ product, licenseId })),
    ...(style.format === "token" && { kid: signer.kid }),
    issuedAt,
    ...(expiresAt && { expiresAt }),
    revokeReason: "",
  };
  await insertLicenseKey(tx, call.tenant, key, {
    hash: ctx.keyHash.hash(secret),
    hashKey: ctx.keyHash.keyId,
    sealed: ctx.vault.seal(Buffer.from(secret), licenseKeyPlace(call.tenant, keyId)),
  });
  const version = await recordKeyChange(ctx, tx, call, key, LicenseChangeCause.KEY_ISSUED);
  return { key, secret, version };
}

async function newTokenKey(
  ctx: Context,
  call: Call,
  signer: Signer,
  keyId: string,
  { customerId, style, held, expiresAt }: WantedKey,
): Promise<string> {
  const now = ctx.now();
  const signed = held.filter(({ license }) => permits(license, now));
  if (signed.length === 0) {
    throw failure("KEY_CANNOT_HOLD", "None of the licenses is in force: a token key would permit nothing.");
  }
  const context = { issuer: ctx.issuer, tenant: call.tenant, now };
  const claims = keyClaims(context, { keyId, customerId, ...(expiresAt && { expiresAt }) }, signed);
  const { jws } = await sign(claims, "licet-key+jwt", signer);
  const key = joinTokenKey(style.prefix, jws);
  if (key.length <= MAX_TOKEN_CHARACTERS) return key;
  throw failure(
    "KEY_TOO_LARGE",
    `The key would have ${key.length} characters, with ${MAX_TOKEN_CHARACTERS} the most possible: give it fewer licenses.`,
    { maximum: `${MAX_TOKEN_CHARACTERS} characters` },
  );
}

/** Appends what happened to a key to its customer's history, as a version of its own. Returns that version. */
export async function recordKeyChange(
  ctx: Context,
  tx: Transaction<DB>,
  call: Call,
  { customerId, keyId }: Pick<LicenseKey, "customerId" | "keyId">,
  cause: Exclude<LicenseChangeCause, LicenseChangeCause.UNSPECIFIED>,
  reason = "",
): Promise<bigint> {
  const version = await raiseEntitlementVersion(tx, call.tenant, customerId);
  await recordLicenseChange(ctx, tx, call, { customerId, version, cause, keyId, reason });
  return version;
}

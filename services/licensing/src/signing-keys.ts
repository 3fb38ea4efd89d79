import { PLATFORM_TENANT } from "@licet/platform/credentials";
import { inTenant } from "@licet/platform/database/database";
import type { Transaction } from "kysely";
import type { Context } from "./context.ts";
import { type SigningKey, signerAt, signingKeyStatusAt } from "./domain/signing-key.ts";
import { recordSigningKeyChange } from "./history.ts";
import { newSigningKey } from "./signatures.ts";
import type { DB } from "./store/schema.ts";
import {
  insertSigningKey,
  listSigningKeys,
  lockSigningKeys,
  type SealedSigningKey,
  signingKeyPlace,
} from "./store/signing-keys.ts";

/** A key that signs. */
export interface Signer {
  readonly kid: string;
  /** PKCS 8 in DER. */
  readonly privateKey: Uint8Array;
}

/** The signing keys that are not retired, newest first. An installation without one gets its first. */
export async function publishedKeys(ctx: Context): Promise<SigningKey[]> {
  return (await loadKeys(ctx)).filter((key) => !key.retiredAt);
}

/** The key that signs now. Ask for it before a transaction of a tenant begins: it is the platform's. */
export async function currentSigner(ctx: Context): Promise<Signer> {
  const key = signerAt(await loadKeys(ctx), ctx.now());
  if (key === undefined) throw new Error("no signing key is active: all are pending or retired");
  return { kid: key.kid, privateKey: ctx.vault.open(key.sealed, signingKeyPlace(key.kid)) };
}

/** Makes a signing key inside a transaction of the platform that holds the keys' lock. */
export async function addSigningKey(
  ctx: Context,
  tx: Transaction<DB>,
  actor: string,
  activeFrom: Date,
): Promise<SigningKey> {
  const { kid, publicKey, privateKey } = await newSigningKey();
  const sealed = ctx.vault.seal(privateKey, signingKeyPlace(kid));
  const key: SealedSigningKey = { kid, publicKey, sealed, version: 1n, createdAt: ctx.now(), activeFrom };
  await insertSigningKey(tx, key);
  const status = signingKeyStatusAt(key, await listSigningKeys(tx), ctx.now());
  await recordSigningKeyChange(ctx, tx, actor, key, status);
  return key;
}

async function loadKeys(ctx: Context): Promise<SealedSigningKey[]> {
  const keys = await inTenant(ctx.db, PLATFORM_TENANT, listSigningKeys, { readOnly: true });
  if (keys.length > 0) return keys;
  return inTenant(ctx.db, PLATFORM_TENANT, async (tx) => {
    await lockSigningKeys(tx);
    if ((await listSigningKeys(tx)).length === 0) await addSigningKey(ctx, tx, "bootstrap", ctx.now());
    return listSigningKeys(tx);
  });
}

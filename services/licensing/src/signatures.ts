import { createPrivateKey, createPublicKey, generateKeyPairSync, hash, type KeyObject } from "node:crypto";
import { CompactSign, calculateJwkThumbprint, compactVerify, decodeProtectedHeader, errors } from "jose";
import type { SigningKey } from "./domain/signing-key.ts";

/** What a signature is for, in the header's `typ`: one can't pass for the other. */
export type TokenType = "licet-key+jwt" | "licet-license+jwt";

/** Ed25519 in JWS (RFC 8037). */
const ALGORITHM = "EdDSA";

/** A new Ed25519 key; `privateKey` is PKCS 8 in DER. */
export async function newSigningKey(): Promise<{ kid: string; publicKey: Uint8Array; privateKey: Uint8Array }> {
  const pair = generateKeyPairSync("ed25519");
  const publicKey = Buffer.from(pair.publicKey.export({ format: "jwk" }).x ?? "", "base64url");
  const kid = await calculateJwkThumbprint(publicJwk(publicKey));
  return { kid, publicKey, privateKey: pair.privateKey.export({ format: "der", type: "pkcs8" }) };
}

/** The installation's public keys as a JWK set (RFC 7517), which `GET /.well-known/jwks.json` answers. */
export function jwkSet(keys: readonly SigningKey[]) {
  return {
    keys: keys.map(({ kid, publicKey }) => ({ ...publicJwk(publicKey), kid, alg: ALGORITHM, use: "sig" })),
  };
}

/** Signs claims; what holds of a JWS is described at SignedLicense of the contract. */
export async function sign(
  claims: object,
  type: TokenType,
  { kid, privateKey }: { readonly kid: string; readonly privateKey: Uint8Array },
): Promise<{ jws: string; payload: Uint8Array; signature: Uint8Array; hash: Uint8Array }> {
  const payload = Buffer.from(JSON.stringify(claims));
  const key = createPrivateKey({ key: Buffer.from(privateKey), format: "der", type: "pkcs8" });
  const jws = await new CompactSign(payload).setProtectedHeader({ alg: ALGORITHM, kid, typ: type }).sign(key);
  const signature = Buffer.from(jws.slice(jws.lastIndexOf(".") + 1), "base64url");
  return { jws, payload, signature, hash: hash("sha256", payload, "buffer") };
}

/**
 * Whether one of the keys signed a JWS of this type. The algorithm is ours, never the token's; of its header only `kid`
 * is used, to choose among the keys, and keys that it brings itself are ignored.
 */
export async function isSigned(jws: string, type: TokenType, keys: readonly SigningKey[]): Promise<boolean> {
  try {
    const { kid, typ } = decodeProtectedHeader(jws);
    const key = keys.find((candidate) => candidate.kid === kid);
    if (key === undefined || typ !== type) return false;
    await compactVerify(jws, publicKeyObject(key.publicKey), { algorithms: [ALGORITHM] });
    return true;
  } catch (error) {
    // TypeError is what jose throws at a header that is none. What was wrong helps nobody but a forger.
    if (error instanceof errors.JOSEError || error instanceof TypeError) return false;
    throw error;
  }
}

function publicKeyObject(publicKey: Uint8Array): KeyObject {
  return createPublicKey({ key: publicJwk(publicKey), format: "jwk" });
}

function publicJwk(publicKey: Uint8Array): { kty: "OKP"; crv: "Ed25519"; x: string } {
  return { kty: "OKP", crv: "Ed25519", x: Buffer.from(publicKey).toString("base64url") };
}

/** The public half of a key that signs token keys and signed licenses. */
export interface SigningKey {
  /** JWK thumbprint of the public key (RFC 7638). */
  kid: string;
  /** Ed25519, 32 bytes. */
  publicKey: Uint8Array;
  /** Raised with every change of the key. */
  version: bigint;
  createdAt: Date;
  /** From when on it signs. */
  activeFrom: Date;
  retiredAt?: Date;
}

/** Where a signing key stands; the contract's SigningKeyStatus describes each. */
export type SigningKeyStatus = "pending" | "active" | "retiring" | "retired";

/** The key that signs at a time: of those that are not retired, the one whose turn came last. Undefined: none may. */
export function signerAt<T extends SigningKey>(keys: readonly T[], now: Date): T | undefined {
  return keys
    .filter((key) => !key.retiredAt && key.activeFrom <= now)
    .reduce<T | undefined>((last, key) => (last && !isLater(key, last) ? last : key), undefined);
}

function isLater(one: SigningKey, other: SigningKey): boolean {
  const difference = one.activeFrom.getTime() - other.activeFrom.getTime();
  return difference > 0 || (difference === 0 && one.kid > other.kid);
}

/** The status of one of an installation's keys at a time. */
export function signingKeyStatusAt(key: SigningKey, keys: readonly SigningKey[], now: Date): SigningKeyStatus {
  if (key.retiredAt) return "retired";
  if (key.activeFrom > now) return "pending";
  return signerAt(keys, now)?.kid === key.kid ? "active" : "retiring";
}

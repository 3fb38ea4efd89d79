import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from "node:crypto";

/** A key that protects the keys of records. */
export interface MasterKey {
  /** Names the key inside what it sealed, so that old records can be opened after a rotation; 1 to 255 bytes of UTF-8. */
  readonly id: string;
  /** 32 random bytes. */
  readonly key: Uint8Array;
}

/** Encrypts small secrets for storage. */
export interface Vault {
  /**
   * Encrypts and authenticates `plaintext` under a fresh data key.
   * @param aad where it will be stored: tenant|table|column|row. Opening needs the same, so a value moved elsewhere is useless.
   */
  seal(plaintext: Uint8Array, aad: string): Uint8Array;
  /** Opens what `seal` made. @throws SealedDataError when it was changed, moved, or sealed under an unknown master key. */
  open(sealed: Uint8Array, aad: string): Uint8Array;
}

/** Sealed data can't be opened. The message says why as far as that is known, and nothing of the content. */
export class SealedDataError extends Error {
  override readonly name = "SealedDataError";
}

const ALGORITHM = "aes-256-gcm";
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** First byte of everything sealed; another layout gets another number. */
const FORMAT = 1;

/**
 * Envelope encryption with AES-256-GCM, 96-bit random nonces. Each record has its own random data key, which is encrypted
 * under a master key, so that no key ever encrypts enough records for nonces to collide, and a master key can be replaced by
 * re-wrapping. Layout: format, length of the key id, key id, wrapped data key, content; the last two each as nonce,
 * ciphertext, tag, and both authenticated together with what precedes them and with the caller's `aad`.
 *
 * @param masterKeys every key that data may still be sealed under.
 * @param current id of the one that seals new data.
 */
export function createVault(masterKeys: readonly MasterKey[], current: string): Vault {
  const keys = new Map(masterKeys.map(({ id, key }) => [id, checkedKey(id, key)]));
  const currentKey = keys.get(current);
  if (currentKey === undefined) throw new Error(`the vault has no master key named ${JSON.stringify(current)}`);
  const currentHeader = header(current);
  return {
    seal: (plaintext, aad) => {
      const dataKey = randomBytes(KEY_BYTES);
      const context = Buffer.concat([currentHeader, Buffer.from(aad)]);
      const wrapped = encrypt(currentKey, dataKey, context);
      return Buffer.concat([currentHeader, wrapped, encrypt(dataKey, plaintext, context)]);
    },
    open: (sealed, aad) => {
      const { id, head, wrapped, content } = split(sealed);
      const key = keys.get(id);
      if (key === undefined) throw new SealedDataError(`sealed under the unknown master key ${JSON.stringify(id)}`);
      const context = Buffer.concat([head, Buffer.from(aad)]);
      return decrypt(decrypt(key, wrapped, context), content, context);
    },
  };
}

/** Finds a stored secret by its content without storing the content: HMAC-SHA-256 under keys of its own. */
export interface KeyedHash {
  /** Names the master key that {@link KeyedHash.hash} belongs to. */
  readonly keyId: string;
  /** The hash to store, 32 bytes, under the current master key. */
  hash(secret: string): Uint8Array;
  /** The hashes under every master key: one of them is stored, if the secret is. */
  candidates(secret: string): Uint8Array[];
}

/**
 * Keyed hashes for looking secrets up. Each purpose has keys of its own, derived from the master keys by HKDF-SHA-256: a
 * copy of the database alone neither finds a secret by guessing nor shows that two tables hold the same one.
 *
 * @param masterKeys every key that stored hashes may still be under.
 * @param current id of the one that new hashes are under.
 * @param purpose what is looked up, such as `license key`.
 */
export function createKeyedHash(masterKeys: readonly MasterKey[], current: string, purpose: string): KeyedHash {
  const derived = new Map(
    masterKeys.map(({ id, key }) => [id, Buffer.from(hkdfSync("sha256", checkedKey(id, key), "", info(purpose), 32))]),
  );
  const currentKey = derived.get(current);
  if (currentKey === undefined) throw new Error(`there is no master key named ${JSON.stringify(current)}`);
  const mac = (key: Uint8Array, secret: string) => createHmac("sha256", key).update(secret).digest();
  return {
    keyId: current,
    hash: (secret) => mac(currentKey, secret),
    candidates: (secret) => [...derived.values()].map((key) => mac(key, secret)),
  };
}

function info(purpose: string): string {
  return `licet keyed hash 1|${purpose}`;
}

function checkedKey(id: string, key: Uint8Array): Uint8Array {
  const length = Buffer.byteLength(id);
  if (length < 1 || length > 255) throw new Error("the id of a master key must have 1 to 255 bytes");
  if (key.length !== KEY_BYTES)
    throw new Error(`the master key ${id} must have ${KEY_BYTES} bytes, it has ${key.length}`);
  return key;
}

function header(id: string): Buffer {
  const name = Buffer.from(id);
  return Buffer.concat([Buffer.from([FORMAT, name.length]), name]);
}

function split(sealed: Uint8Array): { id: string; head: Uint8Array; wrapped: Uint8Array; content: Uint8Array } {
  const headEnd = 2 + (sealed[1] ?? 0);
  const wrappedEnd = headEnd + NONCE_BYTES + KEY_BYTES + TAG_BYTES;
  if (sealed[0] !== FORMAT || sealed.length < wrappedEnd + NONCE_BYTES + TAG_BYTES) {
    throw new SealedDataError("not sealed data, or cut short");
  }
  return {
    id: Buffer.from(sealed.subarray(2, headEnd)).toString(),
    head: sealed.subarray(0, headEnd),
    wrapped: sealed.subarray(headEnd, wrappedEnd),
    content: sealed.subarray(wrappedEnd),
  };
}

function encrypt(key: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES }).setAAD(aad);
  return Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

function decrypt(key: Uint8Array, box: Uint8Array, aad: Uint8Array): Buffer {
  const nonce = box.subarray(0, NONCE_BYTES);
  const tagStart = box.length - TAG_BYTES;
  const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES }).setAAD(aad);
  decipher.setAuthTag(box.subarray(tagStart));
  try {
    return Buffer.concat([decipher.update(box.subarray(NONCE_BYTES, tagStart)), decipher.final()]);
  } catch (cause) {
    throw new SealedDataError("changed since it was sealed, or sealed for another place", { cause });
  }
}

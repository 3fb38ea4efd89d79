/** The most characters of a token key: it has to fit into a request. */
export const MAX_TOKEN_CHARACTERS = 32_768;

/** A token key: a JWS between the brand's prefix and a checksum that finds typing and copying errors offline. */
export function joinTokenKey(prefix: string, jws: string): string {
  const text = `${prefix}-${jws}`;
  return `${text}-${crc32(text)}`;
}

/** What reading a token key's text comes to. */
export type TokenKeyReading =
  | { readonly key: string; readonly jws: string }
  | { readonly problem: "malformed" | "mistyped" };

/**
 * Reads `PREFIX-<JWS>-<8 hex digits>`. base64url has dashes of its own: the checksum follows the last one. Nothing is
 * overlooked but blanks around it: only the very text that was issued is the key.
 */
export function readTokenKey(text: string): TokenKeyReading {
  const key = text.trim();
  const [, prefix, jws, checksum] = /^([A-Z]{2,8})-([\w-]+\.[\w-]+\.[\w-]+)-([0-9a-f]{8})$/.exec(key) ?? [];
  if (prefix === undefined || jws === undefined) return { problem: "malformed" };
  if (checksum !== crc32(`${prefix}-${jws}`)) return { problem: "mistyped" };
  return jws.split(".").every(isCanonical) ? { key, jws } : { problem: "malformed" };
}

/** Whether the unused bits of base64url's last character are 0: else several texts would mean the same bytes. */
function isCanonical(base64url: string): boolean {
  const unused = { 0: /./, 2: /[AQgw]$/, 3: /[AEIMQUYcgkosw048]$/ }[base64url.length % 4];
  return unused?.test(base64url) ?? false;
}

/** CRC-32 as of zlib and ISO 3309, of ASCII text, in 8 hex digits. */
function crc32(text: string): string {
  let crc = 0xffffffff;
  for (let index = 0; index < text.length; index++) {
    crc ^= text.charCodeAt(index);
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (~crc >>> 0).toString(16).padStart(8, "0");
}

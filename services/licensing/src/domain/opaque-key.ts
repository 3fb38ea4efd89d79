/** Crockford's base32: no I, L, O and U, so that a key survives being read aloud and typed. */
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/** 16 symbols of 5 random bits are 80 bits. */
const SYMBOLS = 16;
/** How many random bytes {@link newOpaqueKey} takes. */
export const OPAQUE_KEY_BYTES = 10;

/**
 * An opaque key of 80 random bits, such as `RM-9K7M-2V4T-X0QH-3C8N-W`: four groups of four symbols of Crockford's base32
 * and a check character, all behind the brand's prefix.
 *
 * @param prefix - 2 to 8 capital letters
 * @param random - {@link OPAQUE_KEY_BYTES} random bytes
 */
export function newOpaqueKey(prefix: string, random: Uint8Array): string {
  if (random.length !== OPAQUE_KEY_BYTES) throw new Error(`a key takes ${OPAQUE_KEY_BYTES} random bytes`);
  const bits = random.reduce((all, byte) => (all << 8n) | BigInt(byte), 0n);
  const symbols = Array.from({ length: SYMBOLS }, (_, index) => ALPHABET[Number((bits >> BigInt(5 * index)) & 31n)]);
  return format(prefix, symbols.join(""));
}

/** What reading a key's text comes to: the key as it is stored, or what is wrong with it. */
export type OpaqueKeyReading = { readonly key: string } | { readonly problem: "malformed" | "mistyped" };

/**
 * Reads an opaque key as people write it: without case, with or without dashes and blanks behind the prefix, O for 0,
 * I and L for 1. The check character tells every wrong character and every two that changed places from an unknown key.
 */
export function readOpaqueKey(text: string): OpaqueKeyReading {
  const [, prefix, rest] = /^([A-Z]{2,8})\s*-([0-9A-Z\s-]+)$/.exec(text.trim().toUpperCase()) ?? [];
  if (prefix === undefined || rest === undefined) return { problem: "malformed" };
  const symbols = rest.replaceAll(/[\s-]/g, "").replaceAll("O", "0").replaceAll(/[IL]/g, "1");
  if (symbols.length !== SYMBOLS + 1 || symbols.includes("U")) return { problem: "malformed" };
  const key = format(prefix, symbols.slice(0, SYMBOLS));
  return key.endsWith(symbols.slice(SYMBOLS)) ? { key } : { problem: "mistyped" };
}

function format(prefix: string, symbols: string): string {
  return [prefix, ...(symbols.match(/.{4}/g) ?? []), checkCharacter(prefix, symbols)].join("-");
}

/**
 * A check digit over the field GF(32) = GF(2)[x]/(x⁵ + x² + 1): the value that makes the polynomial of all values vanish
 * at x. The powers of x differ for up to 31 places, so a change of one value and an exchange of any two different ones
 * never cancel out. Letters of the prefix take part by their place in the alphabet, 1 to 26.
 */
function checkCharacter(prefix: string, symbols: string): string {
  const letters = Array.from(prefix, (letter) => letter.charCodeAt(0) & 31);
  const values = Array.from(symbols, (symbol) => ALPHABET.indexOf(symbol));
  const sum = [...letters, ...values].reduce((sum, value) => timesX(sum) ^ value, 0);
  return ALPHABET[timesX(sum)] as string;
}

function timesX(value: number): number {
  const shifted = value << 1;
  return shifted > 31 ? shifted ^ 0b100101 : shifted;
}

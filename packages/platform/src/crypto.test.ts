import { randomBytes } from "node:crypto";
import { describe, expect, test } from "@jest/globals";
import { createKeyedHash, createVault, SealedDataError } from "./crypto.ts";

const one = { id: "one", key: randomBytes(32) };
const two = { id: "two", key: randomBytes(32) };
const vault = createVault([one], "one");
const secret = Buffer.from("lct_secret");

describe("vault", () => {
  test.each([[Buffer.alloc(0)], [secret], [randomBytes(100_000)]])("opens what it sealed", (plaintext) => {
    expect(Buffer.from(vault.open(vault.seal(plaintext, "here"), "here"))).toEqual(plaintext);
  });

  test("hides the plaintext and never seals twice the same way", () => {
    const [a, b] = [vault.seal(secret, "here"), vault.seal(secret, "here")];
    expect(Buffer.from(a).includes(secret)).toBe(false);
    expect(Buffer.from(a)).not.toEqual(Buffer.from(b));
  });

  test("refuses every change of a single bit", () => {
    const sealed = vault.seal(secret, "here");
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const changed = Uint8Array.from(sealed);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(() => vault.open(changed, "here")).toThrow(SealedDataError);
    }
  });

  test("refuses every shortened and any lengthened value", () => {
    const sealed = vault.seal(secret, "here");
    for (let length = 0; length < sealed.length; length++) {
      expect(() => vault.open(sealed.subarray(0, length), "here")).toThrow(SealedDataError);
    }
    expect(() => vault.open(Buffer.concat([sealed, Buffer.of(0)]), "here")).toThrow(SealedDataError);
  });

  test("binds the value to its place", () => {
    expect(() => vault.open(vault.seal(secret, "tenant|a"), "tenant|b")).toThrow(/sealed for another place/);
  });

  test("opens under every known key, seals under the current one", () => {
    const old = vault.seal(secret, "here");
    const rotated = createVault([one, two], "two");
    expect(Buffer.from(rotated.open(old, "here"))).toEqual(secret);
    expect(() => vault.open(rotated.seal(secret, "here"), "here")).toThrow(/unknown master key "two"/);
  });

  test("a key of the same name but other content does not open", () => {
    const other = createVault([{ id: "one", key: two.key }], "one");
    expect(() => other.open(vault.seal(secret, "here"), "here")).toThrow(SealedDataError);
  });

  test.each([
    ["missing current key", [one], "two", /no master key named "two"/],
    ["short key", [{ id: "one", key: randomBytes(16) }], "one", /must have 32 bytes, it has 16/],
    ["empty id", [{ id: "", key: one.key }], "", /1 to 255 bytes/],
  ])("refuses a %s", (_, keys, current, message) => {
    expect(() => createVault(keys, current)).toThrow(message);
  });
});

describe("keyed hash", () => {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
  const hash = createKeyedHash([one], "one", "keys");

  test("is the same for the same secret, and another for another secret, purpose or master key", () => {
    const others = [
      hash.hash("b"),
      createKeyedHash([one], "one", "other keys").hash("a"),
      createKeyedHash([two], "two", "keys").hash("a"),
    ];
    expect(hex(createKeyedHash([one], "one", "keys").hash("a"))).toBe(hex(hash.hash("a")));
    expect(new Set([hash.hash("a"), ...others].map(hex)).size).toBe(4);
  });

  test("finds after a rotation what was stored before it", () => {
    const rotated = createKeyedHash([two, one], "two", "keys");
    expect(rotated.keyId).toBe("two");
    expect(rotated.candidates("a").map(hex)).toEqual([hex(rotated.hash("a")), hex(hash.hash("a"))]);
  });

  test("refuses a current key that is not there", () => {
    expect(() => createKeyedHash([one], "two", "keys")).toThrow(/no master key named "two"/);
  });
});

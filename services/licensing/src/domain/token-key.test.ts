import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { joinTokenKey, readTokenKey } from "./token-key.ts";

/** base64url as encoders make it, dashes included. */
const parts = fc.uint8Array({ minLength: 1, maxLength: 60 }).map((bytes) => Buffer.from(bytes).toString("base64url"));
const jwses = fc.tuple(parts, parts, parts).map((three) => three.join("."));
const jws = `${Buffer.from('{"alg":"EdDSA"}').toString("base64url")}.-a-.${"-".repeat(85)}A`;
const key = joinTokenKey("NLS", jws);

test("a token is found again between its prefix and its checksum, wherever it has dashes", () => {
  fc.assert(
    fc.property(jwses, fc.stringMatching(/^[A-Z]{2,8}$/), (text, prefix) => {
      expect(readTokenKey(` ${joinTokenKey(prefix, text)}\n`)).toEqual({
        key: joinTokenKey(prefix, text),
        jws: text,
      });
    }),
  );
});

test("the checksum is the CRC-32 of zlib, over all that stands before it", () => {
  // By Python: zlib.crc32(b"NLS-aaaa.bbbb.cccc")
  expect(joinTokenKey("NLS", "aaaa.bbbb.cccc")).toBe("NLS-aaaa.bbbb.cccc-16e7ee73");
});

test("a change of any one bit is refused", () => {
  const bytes = Buffer.from(key);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const changed = Buffer.from(bytes);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(readTokenKey(changed.toString("latin1"))).toHaveProperty("problem");
  }
});

test("a second text for the same bytes is refused, even with its own checksum", () => {
  const [header = "", payload = "", signature = ""] = jws.split(".");
  for (const last of ["B", "C", "D", "P"]) {
    const other = `${signature.slice(0, -1)}${last}`;
    expect(Buffer.from(other, "base64url")).toEqual(Buffer.from(signature, "base64url"));
    expect(readTokenKey(joinTokenKey("NLS", `${header}.${payload}.${other}`))).toEqual({ problem: "malformed" });
  }
});

test.each([
  ["nothing", ""],
  ["only two parts", joinTokenKey("NLS", "aaaa.bbbb")],
  ["a prefix in small letters", key.toLowerCase()],
  ["a checksum in capitals", key.slice(0, -8) + key.slice(-8).toUpperCase().replace(/^\d+$/, "ABCDEF01")],
  ["padding", joinTokenKey("NLS", "aaaa.bbbb.cc==")],
])("malformed: %s", (_what, text) => {
  expect(readTokenKey(text)).toEqual({ problem: "malformed" });
});

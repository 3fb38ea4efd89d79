import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { decodeResumeToken, encodeResumeToken } from "./resume-token.ts";

const foreign = expect.objectContaining({
  code: "INVALID_ARGUMENT",
  violations: [{ field: "resume_token", description: expect.stringContaining("is not a token of this tenant") }],
});
const forge = (text: string): string => Buffer.from(text).toString("base64url");

describe("a resume token", () => {
  test("stands for the position that it was made of", () => {
    fc.assert(
      fc.property(
        fc.bigInt(0n, 10n ** 18n - 1n),
        fc.stringMatching(/^[a-z0-9_][a-z0-9_.-]{0,62}$/),
        (position, tenant) => {
          expect(decodeResumeToken(encodeResumeToken(tenant, position), tenant, position)).toBe(position);
        },
      ),
    );
  });

  test.each([
    ["another tenant's", encodeResumeToken("rankmath", 5n)],
    ["no base64url", "!!"],
    ["the same with what decoding passes over", `${encodeResumeToken("tradsys", 5n)}=`],
    ["another version", forge("2:5:tradsys")],
    ["a negative position", forge("1:-5:tradsys")],
    ["a position with leading zeros", forge("1:05:tradsys")],
    ["more than an int8", forge("1:9999999999999999999:tradsys")],
    ["a page token", forge('["5","tradsys"]')],
  ])("is refused when it is %s", (_what, token) => {
    expect(() => decodeResumeToken(token, "tradsys", 100n)).toThrow(foreign);
  });

  test("is refused when it lies ahead of the history: what comes up to it would be skipped", () => {
    expect(() => decodeResumeToken(encodeResumeToken("tradsys", 101n), "tradsys", 100n)).toThrow(
      /resume_token: lies ahead of the history/,
    );
  });
});

import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { decodeResumeToken, resumeTokensOf } from "./resume-token.ts";

const anyTenant = fc.stringMatching(/^[a-z0-9_][a-z0-9_.-]{0,62}$/);
const anyIds = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 255, unit: "grapheme" }), { maxLength: 5 });
const anyMs = fc.nat(10 ** 15 - 1);
const anyTold = fc.record({ asOfMs: anyMs, usageAsOfMs: fc.option(anyMs, { nil: undefined }) });
const forge = (text: string): string => Buffer.from(text).toString("base64url");

describe("a resume token", () => {
  test("stands for its times, for the same customers of the same tenant in any order", () => {
    fc.assert(
      fc.property(anyTold, anyTenant, anyIds, (told, tenant, customerIds) => {
        const token = resumeTokensOf({ tenant, customerIds })(told);
        expect(token.length).toBeLessThanOrEqual(512);
        expect(decodeResumeToken(token, { tenant, customerIds: customerIds.toReversed() })).toEqual(told);
      }),
    );
  });

  test.each([
    ["another tenant", { tenant: "rankmath", customerIds: ["a", "b"] }],
    ["fewer customers", { tenant: "tradsys", customerIds: ["a"] }],
    ["all customers", { tenant: "tradsys", customerIds: [] }],
    ["a customer named like two", { tenant: "tradsys", customerIds: ['a","b'] }],
  ])("stands for nothing to %s", (_whose, scope) => {
    const token = resumeTokensOf({ tenant: "tradsys", customerIds: ["a", "b"] })({ asOfMs: 5, usageAsOfMs: 6 });
    expect(decodeResumeToken(token, scope)).toBeUndefined();
  });

  test("of another version of Licet stands for nothing, and is no error", () => {
    expect(decodeResumeToken(forge("watch-3:whatever"), { tenant: "tradsys", customerIds: [] })).toBeUndefined();
  });

  test.each(["!!", forge("1:5:tradsys"), forge('["5","tradsys"]')])("is never %s", (token) => {
    expect(() => decodeResumeToken(token, { tenant: "tradsys", customerIds: [] })).toThrow(
      expect.objectContaining({
        code: "INVALID_ARGUMENT",
        violations: [expect.objectContaining({ field: "resume_token" })],
      }),
    );
  });
});

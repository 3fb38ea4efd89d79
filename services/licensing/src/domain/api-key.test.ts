import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import {
  type ApiKeyEnds,
  apiKeyStatusAt,
  checkReplaceable,
  endOfOverlap,
  scopesBeyond,
  scopesOfKey,
} from "./api-key.ts";
import { scopesOf } from "./roles.ts";

const now = new Date("2026-11-25T12:00:00Z");
const before = new Date(now.getTime() - 1);
const after = new Date(now.getTime() + 1);
const keyId = "lct_0123456789abcdef";

describe("where a key stands", () => {
  test.each<[string, Omit<ApiKeyEnds, "keyId">]>([
    ["active", {}],
    ["active", { expiresAt: after }],
    ["expired", { expiresAt: now }],
    ["expired", { expiresAt: before }],
    ["replaced", { expiresAt: after, replacedBy: "lct_other" }],
    ["replaced", { expiresAt: before, replacedBy: "lct_other" }],
    ["revoked", { revokedAt: before }],
    ["revoked", { revokedAt: before, expiresAt: before, replacedBy: "lct_other" }],
  ])("%s: %p", (status, ends) => {
    const key = { keyId, ...ends };
    expect(apiKeyStatusAt(key, now)).toBe(status);
    const check = () => checkReplaceable(key, now);
    if (status === "active") expect(check).not.toThrow();
    else expect(check).toThrow(expect.objectContaining({ reason: "API_KEY_NOT_IN_FORCE", metadata: { status } }));
  });

  test("who is told to rotate another key is told which", () => {
    expect(() => checkReplaceable({ keyId, expiresAt: after, replacedBy: "lct_next" }, now)).toThrow("lct_next");
  });
});

test("a replaced key ends after the overlap, and never later than it would have", () => {
  fc.assert(
    fc.property(
      fc.nat(2_592_000),
      fc.option(fc.date({ noInvalidDate: true, min: now }), { nil: undefined }),
      (overlap, expiresAt) => {
        const end = endOfOverlap(expiresAt ? { expiresAt } : {}, overlap, now);
        expect(end.getTime()).toBe(Math.min(now.getTime() + overlap * 1_000, expiresAt?.getTime() ?? Infinity));
      },
    ),
  );
});

describe("scopes", () => {
  test("are the role's, or those that the key was issued with", () => {
    expect(scopesOfKey({ role: "product" })).toEqual(scopesOf.product);
    expect(scopesOfKey({ role: "product", scopes: ["usage:write"] })).toEqual(["usage:write"]);
  });

  test("that the role gives no more are not held any more", () => {
    expect(scopesOfKey({ role: "product", scopes: ["usage:write", "licenses:write"] })).toEqual(["usage:write"]);
  });

  test("beyond what is held are told", () => {
    expect(scopesBeyond(["keys:read", "keys:write"], new Set(["keys:read"]))).toEqual(["keys:write"]);
    expect(scopesBeyond(["keys:read"], ["keys:read", "x"])).toEqual([]);
  });
});

import { describe, expect, test } from "@jest/globals";
import { withAddOns } from "./effective-terms.ts";
import { decideKey, type KeyFacts } from "./key-decision.ts";
import type { License } from "./license.ts";
import {
  checkExtendable,
  commonStyle,
  hintOf,
  keyStatusAt,
  type LicenseKey,
  permits,
  permittedUntil,
} from "./license-key.ts";
import { type SigningKey, signerAt, signingKeyStatusAt } from "./signing-key.ts";

const now = new Date("2026-11-22T10:00:00Z");
const before = new Date("2026-11-22T09:59:59Z");
const after = new Date("2026-11-22T10:00:01Z");

const key: LicenseKey = {
  keyId: "k1",
  customerId: "ada",
  format: "opaque",
  prefix: "RM",
  hint: "RM-…-7K2M",
  licenses: [{ product: "pro", licenseId: "l1" }],
  issuedAt: before,
  revokeReason: "",
};
const license: License = {
  licenseId: "l1",
  customerId: "ada",
  product: "pro",
  type: "standard",
  decidedStatus: "active",
  suspendedByBilling: false,
  autoRenew: false,
  revision: 1n,
  statusReason: "",
  ...withAddOns({ features: ["*"], limits: [] }, []),
  grants: [],
  validFrom: before,
  graceDays: 3,
  metadata: {},
  attributes: {},
  createdAt: before,
  updatedAt: before,
};

test.each([
  ["without end", {}, "active"],
  ["its end ahead", { expiresAt: after }, "active"],
  ["its end is now", { expiresAt: now }, "expired"],
  ["inside the overlap", { expiresAt: after, replacedBy: "k2" }, "active"],
  ["after the overlap", { expiresAt: before, replacedBy: "k2" }, "replaced"],
  ["revoked inside the overlap", { expiresAt: after, replacedBy: "k2", revokedAt: before }, "revoked"],
  ["revoked after its end", { expiresAt: before, revokedAt: now }, "revoked"],
] as const)("a key %s is %s", (_what, changes, status) => {
  expect(keyStatusAt({ ...key, ...changes }, now)).toBe(status);
});

const inDays = (days: number) => new Date(now.getTime() + days * 86_400_000);

test.each([
  ["never", {}, undefined],
  ["when its grace is over", { validUntil: inDays(5) }, inDays(8)],
  ["where it is past due", { validUntil: inDays(5), decidedStatus: "past_due" }, inDays(8)],
  ["at a cancellation", { validUntil: inDays(5), cancellation: { at: inDays(5), reason: "" } }, inDays(5)],
  ["with billing's grace", { decidedStatus: "past_due", unpaidGraceUntil: inDays(2) }, inDays(2)],
  [
    "before billing's grace",
    { validUntil: inDays(5), decidedStatus: "past_due", unpaidGraceUntil: inDays(9) },
    inDays(8),
  ],
  ["as it begins, suspended", { decidedStatus: "suspended" }, before],
  ["as it begins, revoked", { decidedStatus: "revoked" }, before],
] as const)("a license permits nothing any more %s", (_when, changes, end) => {
  const changed: License = { ...license, ...changes };
  expect(permittedUntil(changed)).toEqual(end);
  expect(permits(changed, end ?? inDays(10_000))).toBe(end === undefined);
  if (end && end > now) expect(permits(changed, new Date(end.getTime() - 1))).toBe(true);
});

test("a hint shows four characters of the key and never the check character", () => {
  expect(hintOf({ format: "opaque", prefix: "RM" }, "RM-AAAA-BBBB-CCCC-7K2M-Z")).toBe("RM-…-7K2M");
  expect(hintOf({ format: "token", prefix: "NLS" }, "NLS-aa.bb.cc-0123abcd")).toBe("NLS-…-abcd");
});

describe("one key for several licenses", () => {
  const rm = { format: "opaque", prefix: "RM" } as const;
  const other = { ...license, licenseId: "l2", product: "ai" };
  const pro = { product: "pro", keyStyle: rm };

  test("has their common style", () => {
    expect(commonStyle([license, other], [pro, { product: "ai", keyStyle: rm }])).toEqual(rm);
  });

  test.each([
    ["two customers", [license, { ...other, customerId: "bob" }], [pro, pro], "KEY_CANNOT_HOLD"],
    ["one product twice", [license, { ...other, product: "pro" }], [pro, pro], "KEY_CANNOT_HOLD"],
    ["two prefixes", [license, other], [pro, { product: "ai", keyStyle: { ...rm, prefix: "WPR" } }], "KEY_CANNOT_HOLD"],
    [
      "two formats",
      [license, other],
      [pro, { product: "ai", keyStyle: { ...rm, format: "token" } }],
      "KEY_CANNOT_HOLD",
    ],
    ["a product without keys", [license], [{ product: "pro" }], "PRODUCT_HAS_NO_KEYS"],
  ] as const)("refuses %s", (_what, licenses, products, reason) => {
    expect(() => commonStyle(licenses, products)).toThrow(expect.objectContaining({ reason }));
  });

  const ai = { product: "ai", keyStyle: rm };
  test("takes one more of another product", () => {
    expect(() => checkExtendable(key, other, ai, now)).not.toThrow();
  });

  test.each([
    ["a revoked key", { ...key, revokedAt: before }, other, ai, "KEY_NOT_IN_FORCE"],
    ["a key that is being replaced", { ...key, replacedBy: "k2", expiresAt: after }, other, ai, "KEY_NOT_IN_FORCE"],
    ["a token key", { ...key, format: "token" }, other, ai, "KEY_CANNOT_HOLD"],
    ["another customer's key", { ...key, customerId: "bob" }, other, ai, "KEY_CANNOT_HOLD"],
    ["a second one of its product", key, license, { ...ai, product: "pro" }, "KEY_CANNOT_HOLD"],
    ["another brand's key", { ...key, prefix: "WPR" }, other, ai, "KEY_CANNOT_HOLD"],
    ["a product without keys", key, other, { product: "ai" }, "PRODUCT_HAS_NO_KEYS"],
    [
      "the 21st license",
      { ...key, licenses: Array.from({ length: 20 }, (_, index) => ({ product: `p${index}`, licenseId: "x" })) },
      other,
      ai,
      "KEY_CANNOT_HOLD",
    ],
  ] as const)("refuses %s", (_what, held, added, product, reason) => {
    expect(() => checkExtendable(held, added, product, now)).toThrow(expect.objectContaining({ reason }));
  });
});

describe("the answer to a presented key", () => {
  const product = { offlineDays: 30 };
  const at = (time: string) => new Date(time);
  test.each<[string, KeyFacts]>([
    ["malformed", { reading: "malformed" }],
    ["mistyped", { reading: "mistyped" }],
    ["signature_wrong", { reading: "signature_wrong" }],
    ["unknown", { reading: "unknown" }],
    ["wrong_brand", { key }],
    ["revoked", { key: { ...key, revokedAt: before }, product, license }],
    ["replaced", { key: { ...key, expiresAt: before, replacedBy: "k2" }, product, license }],
    ["expired", { key: { ...key, expiresAt: before }, product, license }],
    ["product_not_included", { key, product }],
    ["license_not_yet_valid", { key, product, license: { ...license, validFrom: after } }],
    ["license_suspended", { key, product, license: { ...license, decidedStatus: "suspended" } }],
    ["license_expired", { key, product, license: { ...license, validUntil: at("2026-11-01T00:00:00Z") } }],
    ["license_cancelled", { key, product, license: { ...license, decidedStatus: "cancelled" } }],
    ["license_revoked", { key, product, license: { ...license, decidedStatus: "revoked" } }],
    ["permitted", { key, product, license }],
    ["permitted", { key, product, license: { ...license, decidedStatus: "past_due" } }],
    ["permitted", { key, product, license: { ...license, validUntil: at("2026-11-21T00:00:00Z") } }],
  ])("%s", (reason, facts) => {
    const decision = decideKey(facts, "pro", now);
    expect(decision.reason).toBe(reason);
    expect(decision.message).toMatch(/^[A-Z].*\.$/);
  });

  test("tells what a brand's own key stands for, and nothing of another brand's", () => {
    const expiresAt = after;
    expect(decideKey({ key: { ...key, expiresAt }, product, license }, "pro", now)).toMatchObject({
      license,
      offlineDays: 30,
      keyExpiresAt: after,
    });
    expect(Object.keys(decideKey({ key, license }, "pro", now))).toEqual(["reason", "message"]);
  });
});

describe("signing keys", () => {
  const signing = (kid: string, activeFrom: Date, retiredAt?: Date): SigningKey => ({
    kid,
    publicKey: new Uint8Array(32),
    version: 1n,
    createdAt: before,
    activeFrom,
    ...(retiredAt && { retiredAt }),
  });
  const first = signing("a", new Date("2026-01-01T00:00:00Z"));
  const second = signing("b", now);
  const third = signing("c", after);

  test.each([
    [[first], "a"],
    [[first, second], "b"],
    [[third, first, second], "b"],
    [[first, signing("b", now, now)], "a"],
    [[signing("a", now), signing("b", now)], "b"],
    [[third], undefined],
    [[], undefined],
  ])("the one whose turn came last signs (%#)", (keys, kid) => {
    expect(signerAt(keys, now)?.kid).toBe(kid);
    expect(signerAt(keys.toReversed(), now)?.kid).toBe(kid);
  });

  test("each has its status", () => {
    const keys = [first, second, third, signing("d", before, before)];
    expect(keys.map((one) => signingKeyStatusAt(one, keys, now))).toEqual(["retiring", "active", "pending", "retired"]);
  });
});

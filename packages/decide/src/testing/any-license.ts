import fc from "fast-check";
import type { Grant, License } from "../entitlement.ts";

/** Texts as they can come over the wire: every character, and no half ones. */
const anyText = fc.oneof(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12, unit: "binary" }));
/** Times as timestamps can say them, in whole epoch milliseconds. */
const anyMs = fc.oneof(
  fc.integer({ min: -62_135_596_800_000, max: 253_402_300_799_999 }),
  fc.constantFrom(0, -1, 2 ** 31, 2 ** 32, 1_767_225_600_000),
);
const anyTime = fc.option(anyMs, { nil: undefined });
const anyGrants: fc.Arbitrary<ReadonlyMap<string, Grant>> = fc
  .array(fc.tuple(anyText, fc.record({ expiresAtMs: anyTime, configuration: anyText })), { maxLength: 4 })
  .map((grants) => new Map(grants));

/** Licenses of every kind: what differs between two of one plan differs often, the rest is often the same. */
export const anyLicense: fc.Arbitrary<License> = fc.record<License>({
  id: fc.oneof(fc.uuid(), anyText),
  type: fc.constantFrom("TRIAL", "STANDARD", "ENTERPRISE", "CUSTOM"),
  product: fc.oneof(fc.constant("trading"), anyText),
  plan: fc.option(fc.oneof(fc.constant("standard"), anyText), { nil: undefined }),
  planVersion: fc.nat(3),
  status: fc.constantFrom("PENDING", "ACTIVE", "PAST_DUE", "GRACE", "SUSPENDED", "EXPIRED", "CANCELLED", "REVOKED"),
  features: fc.array(anyText, { maxLength: 5 }).map((features) => new Set(features)),
  grants: fc.oneof(fc.constant(new Map<string, Grant>()), anyGrants),
  limits: fc.array(
    fc.record({
      metric: anyText,
      maximum: fc.option(fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }), { nil: undefined }),
      window: fc.constantFrom("GAUGE", "PER_SECOND", "PER_DAY", "PER_MONTH", "LIFETIME"),
      enforcement: fc.constantFrom("HARD", "SOFT"),
    }),
    { maxLength: 3 },
  ),
  addOns: fc.array(fc.record({ addOn: anyText, version: fc.nat(3), quantity: fc.nat() }), { maxLength: 2 }),
  validFromMs: anyMs,
  validUntilMs: anyTime,
  graceDays: fc.nat(400),
  endedAtMs: anyTime,
  cancelsAtMs: anyTime,
  unpaidGraceUntilMs: anyTime,
});

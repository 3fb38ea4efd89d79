import { create } from "@bufbuild/protobuf";
import { expect, test } from "@jest/globals";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import {
  type License as LicenseMessage,
  LicenseSchema,
  LicenseStatus,
} from "@licet/contracts/licet/licensing/v1/license_pb";
import { toSnapshot } from "@licet/decide/from-wire";
import { standingAt } from "@licet/decide/standing";
import type { DecidedStatus, License } from "@licet/licensing/domain/license";
import { licenseToProto, snapshotToProto } from "@licet/licensing/rpc/convert";
import fc from "fast-check";

const DAY_MS = 86_400_000;
const origin = Date.parse("2026-01-01T00:00:00Z");

/** What licensing tells validation about a license, as validation understands it. */
function asValidationSeesIt(license: License) {
  const snapshot = { tenantId: "t", customerId: "c", version: 1n, licenses: [license], issuedAt: new Date(origin) };
  const [seen] = toSnapshot(create(EntitlementSnapshotSchema, snapshotToProto(snapshot))).licenses;
  if (!seen) throw new Error("the license got lost on the way");
  return seen;
}

const days = fc.integer({ min: 0, max: 20 }).map((count) => new Date(origin + count * DAY_MS));
const licenses = fc
  .record({
    decidedStatus: fc.constantFrom<DecidedStatus>("active", "past_due", "suspended", "cancelled", "revoked"),
    validFrom: days,
    length: fc.option(fc.integer({ min: 1, max: 10 }), { nil: undefined }),
    graceDays: fc.integer({ min: 0, max: 5 }),
    unpaidGraceUntil: fc.option(days, { nil: undefined }),
    cancelsAt: fc.option(days, { nil: undefined }),
  })
  .map(
    ({ decidedStatus, validFrom, length, graceDays, unpaidGraceUntil, cancelsAt }): License => ({
      licenseId: "0199f000-0000-7000-8000-000000000000",
      customerId: "c",
      product: "p",
      type: "standard",
      decidedStatus,
      statusReason: "",
      suspendedByBilling: false,
      // Billing gives a grace for what is past due only.
      ...(unpaidGraceUntil && decidedStatus === "past_due" && { unpaidGraceUntil }),
      ...(cancelsAt && { cancellation: { at: cancelsAt, reason: "" } }),
      base: { features: ["*"], limits: [] },
      addOns: [],
      features: ["*"],
      limits: [],
      grants: [],
      validFrom,
      ...(length !== undefined && { validUntil: new Date(validFrom.getTime() + length * DAY_MS) }),
      graceDays,
      autoRenew: false,
      metadata: {},
      attributes: {},
      createdAt: validFrom,
      updatedAt: validFrom,
      revision: 1n,
    }),
  );

test("licensing shows the same status of a license that validation decides by, at any time", () => {
  const around = fc.integer({ min: -1, max: 1 });
  fc.assert(
    fc.property(licenses, days, around, (license, day, ms) => {
      const now = new Date(day.getTime() + ms);
      const shown: LicenseMessage = create(LicenseSchema, licenseToProto(license, now));
      expect(LicenseStatus[shown.status]).toBe(standingAt(asValidationSeesIt(license), now.getTime()).status);
    }),
    { numRuns: 2_000 },
  );
});

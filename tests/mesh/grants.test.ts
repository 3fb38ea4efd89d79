import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseSchema } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { DecisionReason, ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { decide } from "@licet/decide/decide";
import { toSnapshot } from "@licet/decide/from-wire";
import type { Grant } from "@licet/licensing/domain/grant";
import type { License } from "@licet/licensing/domain/license";
import { licenseToProto, snapshotToProto } from "@licet/licensing/rpc/convert";
import { newId } from "@licet/platform/ids";
import fc from "fast-check";
import { startLicet, type TestLicet } from "./licet.ts";

const DAY_MS = 86_400_000;
const origin = Date.parse("2026-01-01T00:00:00Z");

const features = ["a", "b", "c"] as const;
const days = fc.integer({ min: 0, max: 20 }).map((count) => new Date(origin + count * DAY_MS));
const grants = fc.dictionary(fc.constantFrom(...features), fc.option(days, { nil: undefined })).map((ends) =>
  Object.entries(ends).map(
    ([feature, expiresAt]): Grant => ({
      feature,
      activatedAt: new Date(origin),
      activatedBy: "key",
      onBehalfOf: "ada@example.com",
      configuration: `{"of": "${feature}"}`,
      ...(expiresAt && { expiresAt }),
    }),
  ),
);

function licenseWith(granted: readonly Grant[], ended: boolean): License {
  const at = new Date(origin);
  return {
    licenseId: "0199f000-0000-7000-8000-000000000000",
    customerId: "c",
    product: "p",
    type: "standard",
    decidedStatus: ended ? "revoked" : "active",
    statusReason: "",
    suspendedByBilling: false,
    base: { features: ["c"], limits: [] },
    addOns: [],
    features: ["c"],
    attributes: {},
    limits: [],
    grants: granted,
    validFrom: new Date(origin - DAY_MS),
    graceDays: 0,
    autoRenew: false,
    metadata: {},
    createdAt: at,
    updatedAt: at,
    revision: 1n,
  };
}

test("validation allows by a grant exactly while licensing shows it, at any time, with the same end and configuration", () => {
  const around = fc.integer({ min: -1, max: 1 });
  fc.assert(
    fc.property(grants, fc.boolean(), days, around, (granted, ended, day, ms) => {
      const license = licenseWith(granted, ended);
      const now = new Date(day.getTime() + ms);
      const shown = create(LicenseSchema, licenseToProto(license, now)).grants;
      const sent = { tenantId: "t", customerId: "c", version: 1n, licenses: [license], issuedAt: new Date(origin) };
      const snapshot = toSnapshot(create(EntitlementSnapshotSchema, snapshotToProto(sent)));
      const facts = { snapshot, catalogs: new Map(), usage: undefined, overdueMs: Number.NEGATIVE_INFINITY };
      for (const feature of features) {
        const question = { customerId: "c", feature, product: undefined, values: new Map() };
        const { decision, grant } = decide(question, facts, now.getTime());
        const own = shown.find((one) => one.feature === feature);
        expect(decision).toBe(!ended && (own !== undefined || feature === "c") ? "ALLOW" : "DENY");
        expect(grant?.configuration).toBe(ended ? undefined : own?.configuration);
        if (!ended) expect(grant?.expiresAtMs).toBe(own?.expiresAt && timestampDate(own.expiresAt).getTime());
      }
    }),
    { numRuns: 1_000 },
  );
});

describe("through all services", () => {
  let licet: TestLicet;
  beforeAll(async () => {
    licet = await startLicet({ seed: true });
  });
  afterAll(() => licet.stop());

  test("what was activated is allowed and what was deactivated is denied, by the token of each write", async () => {
    const licensing = createClient(LicensingService, licet.as("tradsys", "brand"));
    const validation = createClient(ValidationService, licet.as("tradsys", "service"));
    const customerId = "nile-brokers";
    const { licenses } = await licensing.listLicenses({ holder: { case: "customerId", value: customerId } });
    const licenseId = licenses[0]?.licenseId ?? "";
    const asked = { licenseId, feature: "egx_access" };
    const expiresAt: Timestamp = timestampFromDate(new Date(Date.now() + DAY_MS));
    const configuration = '{"venues": ["EGX"]}';
    for (let round = 0; round < 3; round++) {
      const wanted = { ...asked, requestId: newId(), expiresAt, configuration };
      const { consistencyToken: on } = await licensing.activateFeature(wanted);
      const question = { customerId, feature: "egx_access" };
      const allowed = await validation.validateFeature({ ...question, ...(on && { atLeast: on }) });
      expect(allowed).toMatchObject({ valid: true, grant: { expiresAt, configuration } });
      const { consistencyToken: off } = await licensing.deactivateFeature({ ...asked, requestId: newId() });
      const denied = await validation.validateFeature({ ...question, ...(off && { atLeast: off }) });
      expect(denied).toMatchObject({ valid: false, reason: DecisionReason.FEATURE_NOT_IN_PLAN });
    }
  });
});

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { until } from "@licet/platform/testing/until";
import { startLicet, type TestLicet } from "../mesh/licet.ts";
import { bufCurl, curl, hasCurl } from "./command-line.ts";
import { grpcWeb } from "./grpc-web.ts";
import type { ForeignClient } from "./outcome.ts";
import { type ReflectingClient, reflectingClient } from "./reflecting.ts";

let licet: TestLicet;
let reflecting: ReflectingClient;

beforeAll(async () => {
  licet = await startLicet({ seed: true });
  reflecting = reflectingClient(new URL(licet.run.grpcUrl).host);
});

afterAll(async () => {
  reflecting?.close();
  await licet?.stop();
});

if (!hasCurl) console.warn("curl is not here: its part of the interop tests is skipped");

const clients: [string, () => ForeignClient][] = [
  ["gRPC, by reflection only (buf curl)", () => bufCurl(licet.run.grpcUrl)],
  ["gRPC, by reflection only (grpc-js)", () => reflecting],
  ...(hasCurl ? [["Connect JSON (curl)", () => curl(licet.run.webUrl)] as [string, () => ForeignClient]] : []),
  ["gRPC-Web (connect-web)", () => grpcWeb(licet.run.webUrl)],
];

const validateFeature = "licet.validation.v1.ValidationService/ValidateFeature";
const getLicense = "licet.licensing.v1.LicensingService/GetLicense";
const listLicenses = "licet.licensing.v1.LicensingService/ListLicenses";
const keyOf = (tenant: string, role: string) => licet.run.apiKeys[tenant]?.[role];

/** The part of a reply at a path such as `license.plan`. */
function at(reply: JsonObject, names: string): unknown {
  return names.split(".").reduce<unknown>((value, name) => (value as JsonObject | undefined)?.[name], reply);
}

describe.each(clients)("%s", (_name, client) => {
  const ask = async (customer_id: string, feature: string, key = keyOf("tradsys", "service")): Promise<JsonObject> => {
    const outcome = await client().call(key, validateFeature, { customer_id, feature });
    if ("refusal" in outcome) throw new Error(JSON.stringify(outcome.refusal));
    return outcome.reply;
  };

  test("cairo-capital may use egx_access", async () => {
    const reply = await ask("cairo-capital", "egx_access");
    expect(reply).toMatchObject({
      valid: true,
      decision: "DECISION_ALLOW",
      reason: "DECISION_REASON_ALLOWED",
      license: { plan: "enterprise", status: "LICENSE_STATUS_ACTIVE" },
    });
  });

  test.each([
    ["trial-desk", "egx_access", "FEATURE_NOT_IN_PLAN", /^Feature "egx_access" is not in plan "trial"/],
    ["nobody-knows", "egx_access", "NO_LICENSE", /nobody-knows/],
    ["lapsed-fund", "egx_access", "LICENSE_EXPIRED", /expired/],
    ["frozen-desk", "advanced_orders", "LICENSE_SUSPENDED", /suspended/],
  ])("%s may not use %s: %s", async (customer, feature, reason, sentence) => {
    const reply = await ask(customer, feature);
    expect(reply.reason).toBe(`DECISION_REASON_${reason}`);
    expect(at(reply, "violations.0")).toMatch(sentence);
    // A Go client leaves out what is at its default.
    expect(reply.valid ?? false).toBe(false);
  });

  test("another tenant's key sees nothing of it", async () => {
    const reply = await ask("cairo-capital", "egx_access", keyOf("rankmath", "service"));
    expect(reply).toMatchObject({ reason: "DECISION_REASON_NO_LICENSE" });
    expect(reply.license).toBeUndefined();

    const own = await client().call(keyOf("tradsys", "viewer"), listLicenses, { customer_id: "cairo-capital" });
    const license_id = "reply" in own ? String(at(own.reply, "licenses.0.licenseId")) : "";
    expect(license_id).toMatch(/^[0-9a-f-]{36}$/);
    const viewer = keyOf("rankmath", "viewer");
    const theirs = await client().call(viewer, listLicenses, { customer_id: "cairo-capital" });
    expect("reply" in theirs && (theirs.reply.licenses ?? [])).toEqual([]);
    const foreign = await client().call(viewer, getLicense, { license_id });
    expect(foreign).toMatchObject({ refusal: { code: "NOT_FOUND", reason: "LICENSE_NOT_FOUND" } });
  });

  test("no key, a wrong one, and one without the scope", async () => {
    const call = (key: string | undefined) => client().call(key, listLicenses, { customer_id: "cairo-capital" });
    expect(await call(undefined)).toMatchObject({
      refusal: { code: "UNAUTHENTICATED", reason: "CREDENTIAL_MISSING" },
    });
    expect(await call("lct_wrong")).toMatchObject({
      refusal: { code: "UNAUTHENTICATED", reason: "CREDENTIAL_INVALID" },
    });
    expect(await call(keyOf("tradsys", "product"))).toMatchObject({
      refusal: { code: "PERMISSION_DENIED", reason: "SCOPE_MISSING" },
    });
  });

  test("the first plan's path", async () => {
    const call = (method: string, body: JsonObject, key = keyOf("tradsys", "service")) =>
      client().call(key, `licensing.LicensingService/${method}`, body);
    const customer_id = "cairo-capital";
    expect(await call("ValidateFeature", { customer_id, feature: "egx_access" })).toMatchObject({
      reply: { valid: true, license: { plan: "enterprise", status: "LICENSE_STATUS_ACTIVE" } },
    });
    expect(await call("GetLicense", { customer_id })).toMatchObject({
      reply: { license: { plan: "enterprise", customerId: customer_id, features: ["*"] } },
    });
    // Of all clients the same event: it counts once.
    const event = { event_id: "interop", customer_id, metric: "interop_calls", quantity: 2 };
    expect(await call("TrackUsage", event)).toMatchObject({ reply: { accepted: true } });
    const stats = () => call("GetUsageStats", { customer_id, metric: "interop_calls" });
    await until("it is counted", async () => {
      const outcome = await stats();
      return "reply" in outcome && at(outcome.reply, "totals.0.quantity") === "2";
    });

    expect(await call("GetLicense", { customer_id }, keyOf("rankmath", "service"))).toMatchObject({
      refusal: { code: "NOT_FOUND", reason: "LICENSE_NOT_FOUND" },
    });
    expect(await call("GetLicense", { customer_id }, keyOf("tradsys", "product"))).toMatchObject({
      refusal: { code: "PERMISSION_DENIED", reason: "SCOPE_MISSING" },
    });
    expect(await call("ValidateFeature", { feature: "egx_access" })).toMatchObject({
      refusal: { code: "INVALID_ARGUMENT", reason: "INVALID_FIELD", fields: ["customer_id"] },
    });
  });
});

test("a client that has nothing but the first plan's file", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "licet-first-plan-"));
  writeFileSync(path.join(folder, "licensing_service.proto"), firstPlan);
  try {
    const client = bufCurl(licet.run.grpcUrl, folder);
    const ask = (customer_id: string, context: JsonObject) => {
      const body = { customer_id, feature: "basic_trading", context };
      return client.call(keyOf("tradsys", "service"), "licensing.LicensingService/ValidateFeature", body);
    };
    const id = expect.stringMatching(/^[0-9a-f-]{36}$/);
    expect(await ask("nile-brokers", { users: "50" })).toEqual({
      reply: { valid: true, license: { id, plan: "standard" }, violations: [] },
    });
    expect(await ask("nile-brokers", { users: "51" })).toEqual({
      reply: { valid: false, license: { id, plan: "standard" }, violations: [expect.stringMatching(/users/)] },
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** What was handed down of the first plan, as its clients have it: none of our options, and of a license only some fields. */
const firstPlan = `
syntax = "proto3";
package licensing;
service LicensingService {
  rpc ValidateFeature(ValidateFeatureRequest) returns (ValidateFeatureResponse);
}
message ValidateFeatureRequest {
  string customer_id = 1;
  string feature = 2;
  map<string, string> context = 3;
}
message License {
  string id = 1;
  string plan = 4;
}
message ValidateFeatureResponse {
  bool valid = 1;
  License license = 2;
  repeated string violations = 3;
}
`;

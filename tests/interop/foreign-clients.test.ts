import type { JsonObject } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
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
}, 60_000);

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
function at(reply: JsonObject, path: string): unknown {
  return path.split(".").reduce<unknown>((value, name) => (value as JsonObject | undefined)?.[name], reply);
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
});

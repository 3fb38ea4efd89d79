import { createPublicKey, verify } from "node:crypto";
import { type Client, createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { newId } from "@licet/platform/ids";
import { startLicet, type TestLicet } from "./licet.ts";

let licet: TestLicet;

beforeAll(async () => {
  licet = await startLicet({ seed: true });
});
afterAll(() => licet.stop());

/** A demo customer's key as an admin sees it. */
async function keyOf(tenant: string, customerId: string): Promise<string> {
  const keys: Client<typeof KeyService> = createClient(KeyService, licet.as(tenant, "admin"));
  const { keys: held } = await keys.listKeys({ holder: { case: "customerId", value: customerId } });
  expect(held).toHaveLength(1);
  const keyId = held[0]?.keyId ?? "";
  return (await keys.revealKey({ requestId: newId(), keyId, reason: "a test of the demo data" })).secret;
}

/** Asks as an installed product does: over HTTP, with nothing but the key. */
async function check(key: string, product: string) {
  const response = await fetch(`${licet.run.webUrl}/licet.licensing.v1.ActivationService/CheckKey`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ key, product }),
  });
  expect(response.status).toBe(200);
  return (await response.json()) as { valid: boolean; reason: string; offlineDays: number };
}

test("two brands, one e-mail: one RankMath key for two products, one WP Rocket key for its own", async () => {
  const [rankmath, rocket] = [await keyOf("rankmath", "ada"), await keyOf("wprocket", "ada")];
  expect([rankmath.slice(0, 3), rocket.slice(0, 4)]).toEqual(["RM-", "WPR-"]);
  expect(await check(rankmath, "rankmath-pro")).toMatchObject({ valid: true, reason: "KEY_REASON_PERMITTED" });
  expect(await check(rankmath, "rankmath-content-ai")).toMatchObject({ valid: true });
  expect(await check(rocket, "rocket")).toMatchObject({ valid: true });
  expect(await check(rankmath, "rocket")).toMatchObject({ valid: false, reason: "KEY_REASON_WRONG_BRAND" });
});

test("Nectar's token key proves itself by the published keys, which caches may keep", async () => {
  const token = await keyOf("nectar", "self-host-gmbh");
  expect(await check(token, "workflows")).toMatchObject({ valid: true, offlineDays: 30 });
  const url = `${licet.run.webUrl}/.well-known/jwks.json`;
  const published = await fetch(url);
  expect(published.headers.get("cache-control")).toBe("public, max-age=300");
  const { keys } = (await published.json()) as { keys: { kid: string; kty: string; crv: string; x: string }[] };
  expect(keys).toMatchObject([{ kty: "OKP", crv: "Ed25519", alg: "EdDSA", use: "sig" }]);
  expect(Object.keys(keys[0] ?? {}).sort()).toEqual(["alg", "crv", "kid", "kty", "use", "x"]);
  const known = { "if-none-match": published.headers.get("etag") ?? "", "cache-control": "max-age=0" };
  expect((await fetch(url, { headers: known })).status).toBe(304);

  const jws = token.slice(4, token.lastIndexOf("-"));
  const [header = "", payload = "", signature = ""] = jws.split(".");
  const { kid } = JSON.parse(Buffer.from(header, "base64url").toString());
  const jwk = keys.find((key) => key.kid === kid);
  const publicKey = createPublicKey({ key: jwk as never, format: "jwk" });
  const signed = Buffer.from(`${header}.${payload}`);
  expect(verify(null, signed, publicKey, Buffer.from(signature, "base64url"))).toBe(true);
  expect(JSON.parse(Buffer.from(payload, "base64url").toString())).toMatchObject({
    iss: "licet",
    sub: "self-host-gmbh",
    aud: ["nectar/workflows"],
    licenses: [{ plan: "business", offline_days: 30, grace_days: 7 }],
  });
});

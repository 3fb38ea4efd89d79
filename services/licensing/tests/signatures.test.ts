import { spawnSync } from "node:child_process";
import { createHash, createPublicKey, generateKeyPairSync, sign, verify } from "node:crypto";
import path from "node:path";
import { crc32 } from "node:zlib";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { KeyReason } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { KeyFormat, LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { SigningKeyStatus } from "@licet/contracts/licet/licensing/v1/license_key_pb";
import { newId } from "@licet/platform/ids";
import { describeWith } from "@licet/platform/testing/needs";
import { type Clients, type Harness, startHarness } from "./harness.ts";

let harness: Harness;
let nectar: Clients;
let operator: Clients;
/** A token key and its license. */
let secret: string;
let licenseId: string;

beforeAll(async () => {
  harness = await startHarness();
  operator = harness.as("_platform", "operator");
  await operator.tenants.createTenant({ requestId: newId(), tenantId: "nectar", name: "Nectar" });
  nectar = harness.as("nectar", "admin");
  const style = { keyFormat: KeyFormat.TOKEN, keyPrefix: "NLS", offlineDays: 30, graceDays: 7 };
  await nectar.catalog.createProduct({ requestId: newId(), product: "workflows", name: "Workflows", ...style });
  const terms = {
    type: LicenseType.STANDARD,
    features: ["*"],
    limits: [{ metric: "runs", maximum: 9_007_199_254_740_993n, window: 4 }],
    seats: 3,
  };
  await nectar.catalog.createPlan({ requestId: newId(), product: "workflows", plan: "team", name: "Team", terms });
  await nectar.customers.createCustomer({ requestId: newId(), customerId: "self-host", name: "Self-Host" });
});
afterAll(() => harness.stop());

beforeEach(async () => {
  const { license, keySecret } = await nectar.licenses.provisionLicense({
    requestId: newId(),
    customerId: "self-host",
    product: "workflows",
    plan: "team",
    key: { case: "issueKey", value: true },
  });
  secret = keySecret;
  licenseId = license?.licenseId ?? "";
});

const check = async (key: string) => (await harness.installed.checkKey({ key, product: "workflows" })).reason;
const withChecksum = (text: string) => `${text}-${crc32(text).toString(16).padStart(8, "0")}`;
const jwsOf = (key: string) => key.slice(key.indexOf("-") + 1, key.lastIndexOf("-"));
const keyOf = (jws: string) => withChecksum(`NLS-${jws}`);

/** Every text that differs from this one in a single bit. */
function bitFlips(text: string): string[] {
  const bytes = Buffer.from(text, "latin1");
  return Array.from({ length: bytes.length * 8 }, (_, bit) => {
    const changed = Buffer.from(bytes);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    return changed.toString("latin1");
  });
}

/** The key set as `GET /.well-known/jwks.json` answers it. */
async function jwks(): Promise<{ keys: { kid: string; x: string }[] }> {
  const load = harness.licensing.documents["/.well-known/jwks.json"];
  return (await load?.()) as { keys: { kid: string; x: string }[] };
}

/** Asks the Python program what it makes of these texts. */
async function byPython(texts: readonly string[]): Promise<{ claims?: Record<string, unknown>; refused?: string }[]> {
  const input = JSON.stringify({ ...(await jwks()), texts });
  const program = path.join(import.meta.dirname, "verify.py");
  const { stdout, stderr } = spawnSync("python3", [program], { input, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout);
}

const noPython =
  spawnSync("python3", ["-c", "import cryptography"]).status === 0
    ? undefined
    : "there is no python3 with the package cryptography (Debian: apt-get install python3-cryptography)";

describeWith("python", noPython, "signatures offline, in another language", () => {
  test("a token key is verified by the public key alone, and says what it permits", async () => {
    const [verdict] = await byPython([secret]);
    const { license } = await nectar.licenses.getLicense({ licenseId });
    const end = timestampDate(license?.validUntil as never);
    const { keys } = await nectar.keys.listKeys({ holder: { case: "licenseId", value: licenseId } });
    const iat = harness.clock.now.getTime() / 1_000;
    expect(verdict?.claims).toEqual({
      iss: "licet",
      sub: "self-host",
      aud: ["nectar/workflows"],
      jti: keys[0]?.keyId,
      iat,
      exp: end.getTime() / 1_000 + 7 * 86_400,
      licenses: [
        {
          license_id: licenseId,
          product: "workflows",
          plan: "team",
          plan_version: 1,
          type: "standard",
          features: ["*"],
          limits: [{ metric: "runs", maximum: "9007199254740993", window: "per_month", enforcement: "hard" }],
          grants: [],
          seats: 3,
          valid_from: harness.clock.now.toISOString(),
          valid_until: end.toISOString(),
          grace_days: 7,
          ends_at: new Date(end.getTime() + 7 * 86_400_000).toISOString(),
          offline_days: 30,
        },
      ],
    });
  });

  test("every change of one bit is refused, also when the checksum is made to fit", async () => {
    const texts = [...bitFlips(secret), ...bitFlips(jwsOf(secret)).map(keyOf)];
    const verdicts = await byPython([secret, ...texts]);
    expect(verdicts).toHaveLength(texts.length + 1);
    expect(verdicts.map(({ refused }) => refused !== undefined)).toEqual([false, ...texts.map(() => true)]);
    expect(verdicts.filter(({ refused }) => refused?.startsWith("InvalidSignature")).length).toBeGreaterThan(100);
  });

  test("a signed license is verified, and neither kind passes for the other", async () => {
    const { signedLicense } = await nectar.licenses.getSignedLicense({ licenseId });
    const jws = signedLicense?.jws ?? "";
    const [asItIs, asKey, keyAsLicense] = await byPython([jws, keyOf(jws), jwsOf(secret)]);
    expect(asItIs?.claims).toMatchObject({ sub: "self-host", license: { license_id: licenseId, status: "active" } });
    expect(asKey?.refused).toMatch(/another type/);
    expect(keyAsLicense?.refused).toMatch(/another type/);
    expect(await check(keyOf(jws))).toBe(KeyReason.SIGNATURE_WRONG);
  });
});

describe("GetSignedLicense", () => {
  test("its parts fit each other, by node:crypto", async () => {
    const { signedLicense: signed } = await nectar.licenses.getSignedLicense({ licenseId, ttlSeconds: 3_600 });
    if (!signed) throw new Error("no signed license");
    const { kid, payload, signature } = signed;
    const [header = "", body = ""] = signed.jws.split(".");
    expect(JSON.parse(Buffer.from(header, "base64url").toString())).toEqual({
      alg: "EdDSA",
      kid,
      typ: "licet-license+jwt",
    });
    expect(Buffer.from(body, "base64url")).toEqual(Buffer.from(payload));
    expect(Buffer.from(signed.hash)).toEqual(createHash("sha256").update(payload).digest());
    const jwk = (await jwks()).keys.find((key) => key.kid === kid);
    const publicKey = createPublicKey({ key: jwk as never, format: "jwk" });
    expect(verify(null, Buffer.from(`${header}.${body}`), publicKey, signature)).toBe(true);
    expect(JSON.parse(Buffer.from(payload).toString())).toMatchObject({ iss: signed.issuer, aud: "nectar/workflows" });
    expect(timestampDate(signed.issuedAt as never)).toEqual(harness.clock.now);
    expect(timestampDate(signed.expiresAt as never)).toEqual(new Date(harness.clock.now.getTime() + 3_600_000));
  });

  test("lasts a day where nothing is said, tells a revoked license as revoked, and refuses a minute's fraction", async () => {
    await nectar.licenses.revokeLicense({ requestId: newId(), licenseId });
    const { signedLicense } = await nectar.licenses.getSignedLicense({ licenseId });
    const claims = JSON.parse(Buffer.from(signedLicense?.payload ?? []).toString());
    expect(claims.exp - claims.iat).toBe(86_400);
    expect(claims.license.status).toBe("revoked");
    await expect(nectar.licenses.getSignedLicense({ licenseId, ttlSeconds: 59 })).rejects.toMatchObject({
      violations: [expect.objectContaining({ field: "ttl_seconds" })],
    });
  });
});

describe("a token key that is presented", () => {
  test("is refused with any one bit changed, and told from a typo when the checksum fits", async () => {
    expect(await check(secret)).toBe(KeyReason.PERMITTED);
    const flips = bitFlips(secret).filter((_, index) => index % 29 === 0);
    for (const text of flips) expect([KeyReason.MALFORMED, KeyReason.MISTYPED]).toContain(await check(text));
    const forged = bitFlips(jwsOf(secret)).filter((_, index) => index % 29 === 0);
    const reasons = new Set<KeyReason>();
    for (const jws of forged) reasons.add(await check(keyOf(jws)));
    expect(reasons).toEqual(new Set([KeyReason.MALFORMED, KeyReason.SIGNATURE_WRONG]));
  });

  test("is refused when it was signed by somebody else, whatever its header says", async () => {
    const [, payload = "", signature = ""] = jwsOf(secret).split(".");
    const { privateKey, publicKey } = generateKeyPairSync("ed25519");
    const { kid = "", x = "" } = (await jwks()).keys[0] ?? {};
    const jwk = publicKey.export({ format: "jwk" });
    const encode = (header: object) => Buffer.from(JSON.stringify(header)).toString("base64url");
    const signed = (header: object) => {
      const input = `${encode({ typ: "licet-key+jwt", ...header })}.${payload}`;
      return `${input}.${sign(null, Buffer.from(input), privateKey).toString("base64url")}`;
    };
    const mac = createHash("sha256").update(x).digest("base64url");
    const typ = "licet-key+jwt";
    const forgeries = [
      signed({ alg: "EdDSA", kid }),
      signed({ alg: "EdDSA", kid, jwk }),
      signed({ alg: "EdDSA", kid: "mine", jku: "http://127.0.0.1:1/keys" }),
      signed({ alg: "EdDSA" }),
      `${encode({ alg: "none", kid, typ })}.${payload}.${signature}`,
      `${encode({ alg: "HS256", kid, typ })}.${payload}.${mac}`,
      `${encode({ alg: "EdDSA", kid, typ, crit: ["b64"], b64: false })}.${payload}.${signature}`,
      `${encode({ alg: "EdDSA", kid: { toString: 1 }, typ })}.${payload}.${signature}`,
      `${Buffer.from("not json").toString("base64url")}.${payload}.${signature}`,
      `${Buffer.from("null").toString("base64url")}.${payload}.${signature}`,
    ];
    for (const jws of forgeries) expect([jws, await check(keyOf(jws))]).toEqual([jws, KeyReason.SIGNATURE_WRONG]);
  });
});

describe("signing keys", () => {
  const statuses = async () =>
    new Map((await nectar.keys.getSigningKeys({})).keys.map(({ kid, status }) => [kid, status]));
  const kidOf = async () => (await nectar.licenses.getSignedLicense({ licenseId })).signedLicense?.kid ?? "";

  test("a rotation is published first and signs later; what was signed before stays true until its key is retired", async () => {
    const old = await kidOf();
    const request = { requestId: newId() };
    const next = (await operator.keys.rotateSigningKey(request)).key;
    expect(next?.status).toBe(SigningKeyStatus.PENDING);
    expect((await operator.keys.rotateSigningKey(request)).key?.kid).toBe(next?.kid);
    const kid = next?.kid ?? "";
    expect(await kidOf()).toBe(old);
    expect((await jwks()).keys.map((key) => key.kid)).toEqual(expect.arrayContaining([old, kid]));

    harness.clock.now = new Date(harness.clock.now.getTime() + 600_000);
    expect(await kidOf()).toBe(kid);
    expect(await statuses()).toEqual(
      new Map([
        [kid, SigningKeyStatus.ACTIVE],
        [old, SigningKeyStatus.RETIRING],
      ]),
    );
    expect(await check(secret)).toBe(KeyReason.PERMITTED);

    const retire = { requestId: newId(), kid: old };
    expect((await operator.keys.retireSigningKey(retire)).key?.status).toBe(SigningKeyStatus.RETIRED);
    expect(await check(secret)).toBe(KeyReason.SIGNATURE_WRONG);
    expect([...(await statuses()).keys()]).toEqual([kid]);
    expect((await jwks()).keys.map((key) => key.kid)).toEqual([kid]);
    const again = await operator.keys.retireSigningKey({ requestId: newId(), kid: old });
    expect(timestampDate(again.key?.retiredAt as never)).toEqual(harness.clock.now);
  });

  test("the one that signs can't be retired; an unknown one is not found; tenants can do neither", async () => {
    const requestId = newId;
    await expect(operator.keys.retireSigningKey({ requestId: requestId(), kid: await kidOf() })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "SIGNING_KEY_IN_USE",
    });
    await expect(operator.keys.retireSigningKey({ requestId: requestId(), kid: "x".repeat(43) })).rejects.toMatchObject(
      { code: "NOT_FOUND", reason: "SIGNING_KEY_NOT_FOUND" },
    );
    for (const forbidden of [
      nectar.keys.rotateSigningKey({ requestId: requestId() }),
      nectar.keys.retireSigningKey({ requestId: requestId(), kid: "x".repeat(43) }),
    ]) {
      await expect(forbidden).rejects.toMatchObject({ reason: "SCOPE_MISSING" });
    }
  });

  test("each change is in the history, and private keys are sealed", async () => {
    await harness.database.asSuperuser(async (client) => {
      const { rows } = await client.query(
        "SELECT stream, version FROM event WHERE type = 'licet.signing-key.changed.v1'",
      );
      expect(rows.map(({ version }) => Number(version)).sort()).toEqual([1, 1, 2]);
      // How an Ed25519 private key begins as PKCS 8.
      const { rows: bare } = await client.query(
        "SELECT kid FROM signing_key WHERE encode(sealed, 'hex') LIKE '%06032b657004220420%'",
      );
      expect(bare).toEqual([]);
    });
    await harness.licensing.drain();
    expect(harness.published.filter(({ headers }) => headers.ce_type?.includes("signing-key"))).toEqual([]);
  });

  test("an installation that is asked by many at once gets one first key", async () => {
    const fresh = await startHarness();
    try {
      const anonymous = fresh.as("nobody", "product").keys;
      const replies = await Promise.all(Array.from({ length: 12 }, () => anonymous.getSigningKeys({})));
      expect(new Set(replies.map(({ keys }) => keys.map(({ kid }) => kid).join(","))).size).toBe(1);
      expect(replies[0]?.keys).toMatchObject([{ status: SigningKeyStatus.ACTIVE }]);
    } finally {
      await fresh.stop();
    }
  });
});

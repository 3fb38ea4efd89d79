import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { crc32 } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import type { Environment } from "./environment.ts";
import type { LicetError } from "./errors.ts";
import { createLicet, type OfflineOptions } from "./index.ts";
import { createOffline } from "./offline.ts";

const day = 86_400_000;
const issued = Date.parse("2030-06-01T00:00:00Z");
const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const publicKeys = { keys: [{ kid: "k1", kty: "OKP", crv: "Ed25519", ...publicKey.export({ format: "jwk" }) }] };

let directory: string;
const closers: (() => Promise<unknown>)[] = [];
beforeEach(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), "licet-offline-"));
});
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  await rm(directory, { recursive: true, force: true });
});

function jws(claims: object, typ = "licet-key+jwt", more: object = {}, key: KeyObject = privateKey): string {
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${encode({ alg: "EdDSA", kid: "k1", typ, ...more })}.${encode(claims)}`;
  return `${signed}.${sign(null, Buffer.from(signed), key).toString("base64url")}`;
}

function tokenKey(claims: object): string {
  const text = `NLS-${jws(claims)}`;
  return `${text}-${crc32(text).toString(16).padStart(8, "0")}`;
}

/** The claims as docs/guides/keys.md describes them. */
function license(overrides: object = {}): object {
  return {
    license_id: "l1",
    product: "workflows",
    plan: "business",
    plan_version: 1,
    type: "standard",
    features: ["*"],
    limits: [{ metric: "users", maximum: "50", window: "gauge", enforcement: "hard" }],
    grants: [],
    seats: 3,
    valid_from: new Date(issued - day).toISOString(),
    valid_until: new Date(issued + 365 * day).toISOString(),
    grace_days: 7,
    ends_at: new Date(issued + 372 * day).toISOString(),
    offline_days: 30,
    ...overrides,
  };
}

function claims(licenses: readonly object[] = [license()], overrides: object = {}): object {
  return {
    iss: "licet",
    sub: "self-host",
    aud: licenses.map(() => "nectar/workflows"),
    jti: "j",
    iat: issued / 1_000,
    licenses,
    ...overrides,
  };
}

/** A client on these files, with a machine whose clock can be set. */
async function open(texts: readonly string[], more: Partial<OfflineOptions> = {}, startMs = issued) {
  const files = texts.map((_, index) => path.join(directory, `license-${index}`));
  for (const [index, text] of texts.entries()) await writeFile(files[index] ?? "", text);
  const time = { wallMs: startMs, steadyMs: 0 };
  const warnings: LicetError[] = [];
  const environment: Environment = {
    machine: () => ({ ...time }),
    steadyMs: () => time.steadyMs,
    random: Math.random,
    warn: (error) => warnings.push(error),
  };
  const licet = createOffline({ mode: "offline", licenseFiles: files, publicKeys, ...more }, environment);
  closers.push(() => licet.close());
  const pass = (ms: number): void => {
    time.wallMs += ms;
    time.steadyMs += ms;
  };
  return { licet, warnings, time, pass, reasonOf: (feature = "ai") => licet.check("self-host", feature).reason };
}

describe("a client in offline mode", () => {
  test("decides by a token key, for its offline days and then its days of grace", async () => {
    const { licet, pass, reasonOf } = await open([tokenKey(claims())]);
    await licet.ready();
    expect(licet.state).toBe("READY");
    expect(licet.check("self-host", "any_feature")).toMatchObject({
      allowed: true,
      license: { id: "l1", plan: "business" },
      degraded: false,
      stalenessMs: 0,
    });
    expect(licet.check("self-host", "ai", { users: 51 }).reason).toBe("LIMIT_EXCEEDED");
    expect(licet.check("somebody", "ai").reason).toBe("NOT_COVERED");
    pass(30 * day - 1);
    expect(licet.check("self-host", "ai").degraded).toBe(false);
    pass(1);
    expect(licet.check("self-host", "ai")).toMatchObject({ allowed: true, degraded: true });
    pass(7 * day - 1);
    expect(reasonOf()).toBe("ALLOWED");
    pass(1);
    expect(reasonOf()).toBe("FACTS_TOO_OLD");
  });

  test("a signed license is true no longer than it says, and its status counts", async () => {
    const statement = (overrides: object) =>
      jws(
        {
          iss: "licet",
          sub: "self-host",
          aud: "nectar/workflows",
          jti: "j",
          iat: issued / 1_000,
          exp: issued / 1_000 + 3_600,
          license: license(overrides),
        },
        "licet-license+jwt",
      );
    const good = await open([statement({ status: "active" })]);
    expect(good.reasonOf()).toBe("ALLOWED");
    good.pass(3_600_000);
    expect(good.reasonOf()).toBe("FACTS_TOO_OLD");
    expect((await open([statement({ status: "suspended" })])).reasonOf()).toBe("LICENSE_SUSPENDED");
    expect((await open([statement({ status: "revoked" })])).reasonOf()).toBe("LICENSE_REVOKED");
    expect((await open([statement({ status: "frozen" })])).reasonOf()).toBe("LICENSE_SUSPENDED");
  });

  test("ends with the license: at its end and grace, or earlier where a cancellation takes effect", async () => {
    const over = (overrides: object) => license({ offline_days: 3_000, ...overrides });
    const plain = await open([tokenKey(claims([over({})]))], {}, issued + 366 * day);
    expect(plain.reasonOf()).toBe("ALLOWED_IN_GRACE");
    plain.pass(6 * day);
    expect(plain.reasonOf()).toBe("LICENSE_EXPIRED");
    const cancelled = await open([tokenKey(claims([over({ ends_at: new Date(issued + day).toISOString() })]))]);
    expect(cancelled.reasonOf()).toBe("ALLOWED");
    cancelled.pass(day);
    expect(cancelled.reasonOf()).toBe("LICENSE_EXPIRED");
  });

  test("products that may not go without asking are too old at once, and an old file takes nothing from a new one", async () => {
    expect((await open([tokenKey(claims([license({ offline_days: 0, grace_days: 0 })]))])).reasonOf()).toBe(
      "FACTS_TOO_OLD",
    );
    const old = claims([license({ license_id: "l0" })], { iat: (issued - 100 * day) / 1_000 });
    const both = await open([tokenKey(old), tokenKey(claims())]);
    expect(both.licet.check("self-host", "ai")).toMatchObject({
      allowed: true,
      license: { id: "l1" },
      degraded: false,
    });
    const renewed = claims([license({ features: ["only"] })], { iat: issued / 1_000 + 60 });
    expect((await open([tokenKey(claims()), tokenKey(renewed)])).licet.check("self-host", "only").allowed).toBe(true);
  });

  const refused: readonly [string, () => string, string][] = [
    ["is something else", () => "hello", "is neither a signed license"],
    [
      "has a wrong checksum",
      () => tokenKey(claims()).replace(/.$/, (last) => (last === "0" ? "1" : "0")),
      "checksum is wrong",
    ],
    [
      "was signed by another key",
      () => jws(claims(), "licet-license+jwt", {}, generateKeyPairSync("ed25519").privateKey),
      "wrong signature",
    ],
    ["names an unknown key", () => jws(claims(), "licet-license+jwt", { kid: "k9" }), 'signed by the key "k9"'],
    ["names another algorithm", () => jws(claims(), "licet-license+jwt", { alg: "none" }), "signed with EdDSA"],
    ["is of another type", () => jws(claims(), "licet-key+jwt"), "is not of the type licet-license+jwt"],
    [
      "lacks a claim",
      () => jws(claims([{ ...license(), limits: undefined }]), "licet-license+jwt"),
      "licenses[0].limits",
    ],
  ];
  test.each(refused)(
    "a file that %s is refused, and without another one the client is FATAL",
    async (_name, text, message) => {
      const { licet, warnings } = await open([text()]);
      expect(licet.state).toBe("FATAL");
      await expect(licet.ready()).rejects.toMatchObject({
        reason: "LICENSE_FILE_REFUSED",
        message: expect.stringMatching(/license-0 /),
      });
      expect(warnings[0]?.message).toContain(message);
      const mixed = await open([text(), tokenKey(claims())]);
      expect(mixed.licet.state).toBe("READY");
      expect(mixed.reasonOf()).toBe("ALLOWED");
    },
  );

  test("no bit of a token key can be changed", async () => {
    const whole = jws(claims(), "licet-license+jwt");
    for (let at = 0; at < whole.length; at += 37) {
      const bytes = Buffer.from(whole);
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
      expect((await open([bytes.toString("latin1")])).licet.state).toBe("FATAL");
    }
  });

  test("a clock that is set back gives nothing, also over a restart; without a file for the clock it does", async () => {
    const cacheDir = path.join(directory, "cache");
    const first = await open([tokenKey(claims())], { cacheDir });
    first.pass(38 * day);
    expect(first.reasonOf()).toBe("FACTS_TOO_OLD");
    first.time.wallMs = issued;
    expect(first.reasonOf()).toBe("FACTS_TOO_OLD");
    await first.licet.close();
    expect((await open([tokenKey(claims())], { cacheDir })).reasonOf()).toBe("FACTS_TOO_OLD");
    expect((await open([tokenKey(claims())])).reasonOf()).toBe("ALLOWED");
  });

  test("is not earlier than what it was given was signed", async () => {
    const { licet, reasonOf } = await open([tokenKey(claims())], {}, issued - 1_000 * day);
    expect(reasonOf()).toBe("ALLOWED");
    expect(licet.check("self-host", "ai").stalenessMs).toBe(0);
  });

  test("refuses options that can't be right", () => {
    const options = { mode: "offline", licenseFiles: [], publicKeys } as const;
    expect(createLicet(options).state).toBe("FATAL");
    expect(() => createLicet({ ...options, publicKeys: {} as never })).toThrow(/publicKeys: is no JWK set/);
  });
});

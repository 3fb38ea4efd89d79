import { describe, expect, test } from "@jest/globals";
import {
  type CredentialsOptions,
  createCredentials,
  generateApiKey,
  PLATFORM_TENANT,
  parseApiKey,
  type StoredCredential,
} from "./credentials.ts";
import { type Code, ServiceError } from "./errors.ts";

const start = Date.parse("2030-01-01T00:00:00Z");

function makeKey(overrides: Partial<StoredCredential> = {}): {
  key: string;
  stored: StoredCredential;
} {
  const { key, keyId, secretHash } = generateApiKey();
  const stored: StoredCredential = {
    keyId,
    secretHash,
    tenant: "tradsys",
    role: "admin",
    scopes: ["licenses:read"],
    version: 1n,
    revoked: false,
    ...overrides,
  };
  return { key, stored };
}

/** Credentials over a store that counts its look-ups, with a clock that the test moves. */
function setUp(stored: StoredCredential[] = [], options: Partial<CredentialsOptions> = {}) {
  const clock = { ms: start };
  const asked: string[] = [];
  const store = new Map(stored.map((entry) => [entry.keyId, entry]));
  const credentials = createCredentials({
    resolve: async (keyId) => {
      asked.push(keyId);
      return store.get(keyId);
    },
    now: () => clock.ms,
    ...options,
  });
  const bearer = (key: string, more: Record<string, string> = {}) =>
    credentials.authenticate(new Headers({ authorization: `Bearer ${key}`, ...more }));
  return { credentials, bearer, store, asked, clock };
}

async function refusal(promise: Promise<unknown>): Promise<ServiceError> {
  const error = await promise.then(
    () => new Error("it was let in"),
    (reason: unknown) => reason,
  );
  if (error instanceof ServiceError) return error;
  throw error;
}

async function expectRefusal(promise: Promise<unknown>, code: Code, reason: string, text: string): Promise<void> {
  const error = await refusal(promise);
  expect({ code: error.code, reason: error.reason }).toEqual({ code, reason });
  expect(error.message).toContain(text);
}

describe("generateApiKey", () => {
  test("makes a key of 80 public and 256 secret bits that parses back", () => {
    const { key, keyId } = generateApiKey();
    expect(key).toMatch(/^lct_[0-9a-hjkmnp-tv-z]{16}\.[A-Za-z0-9_-]{43}$/);
    expect(parseApiKey(key)).toEqual({ keyId, secret: key.split(".")[1] });
    expect(Buffer.from(key.split(".")[1] ?? "", "base64url")).toHaveLength(32);
    expect(generateApiKey().key).not.toBe(key);
  });

  test("depends on the given random bytes only", () => {
    const zeros = (size: number) => new Uint8Array(size);
    expect(generateApiKey(zeros).key).toBe(`lct_${"0".repeat(16)}.${"A".repeat(43)}`);
  });

  test.each([
    ["", "nothing"],
    ["lct_0000000000000000", "an id alone"],
    [`lct_${"0".repeat(15)}.${"A".repeat(43)}`, "a short id"],
    [`lct_${"i".repeat(16)}.${"A".repeat(43)}`, "a letter outside of the alphabet"],
    [`lct_${"0".repeat(16)}.${"A".repeat(42)}`, "a short secret"],
    [`lct_${"0".repeat(16)}.${"A".repeat(44)}`, "a long secret"],
    [`lct_${"0".repeat(16)}.${"A".repeat(43)}\n`, "a line end"],
  ])("parseApiKey refuses %j: %s", (text) => {
    expect(parseApiKey(text)).toBeUndefined();
  });
});

describe("an API key", () => {
  test("lets in by either header, with the tenant and scopes it was made for", async () => {
    const { key, stored } = makeKey();
    const { credentials, bearer } = setUp([stored]);
    const expected = {
      id: stored.keyId,
      tenant: "tradsys",
      role: "admin",
      scopes: new Set(["licenses:read"]),
      kind: "api_key",
    };
    expect(await bearer(key)).toEqual(expected);
    expect(await credentials.authenticate(new Headers({ "x-api-key": key }))).toEqual(expected);
    expect(await credentials.authenticate(new Headers({ authorization: `bearer ${key}` }))).toEqual(expected);
  });

  test("that is missing is asked for, naming both headers", async () => {
    const { credentials } = setUp();
    for (const headers of [new Headers(), new Headers({ "x-api-key": "" })]) {
      const error = await refusal(credentials.authenticate(headers));
      expect(error).toMatchObject({ code: "UNAUTHENTICATED", reason: "CREDENTIAL_MISSING" });
      expect(error.message).toMatch(/authorization.*x-api-key/);
    }
  });

  test.each(["Basic dXNlcjpwdw==", "Bearer", "Bearer a, Bearer b", "lct_x"])(
    "in the header %j is malformed",
    async (authorization) => {
      const { credentials, asked } = setUp();
      await expectRefusal(
        credentials.authenticate(new Headers({ authorization })),
        "UNAUTHENTICATED",
        "CREDENTIAL_INVALID",
        "authorization must read",
      );
      expect(asked).toEqual([]);
    },
  );

  test("of another form is refused without a look-up", async () => {
    const { bearer, asked } = setUp();
    await expectRefusal(bearer("hello"), "UNAUTHENTICATED", "CREDENTIAL_INVALID", "malformed");
    expect(asked).toEqual([]);
  });

  test("with a wrong secret answers exactly as an unknown one", async () => {
    const { stored } = makeKey();
    const { bearer } = setUp([stored]);
    const wrong = await refusal(bearer(`${stored.keyId}.${"A".repeat(43)}`));
    const unknown = await refusal(bearer(makeKey().key));
    expect(wrong).toMatchObject({ code: "UNAUTHENTICATED", reason: "CREDENTIAL_INVALID" });
    expect(wrong.message).toBe(unknown.message);
  });

  test("that was revoked is refused", async () => {
    const { key, stored } = makeKey({ revoked: true });
    const { bearer } = setUp([stored]);
    await expectRefusal(bearer(key), "UNAUTHENTICATED", "CREDENTIAL_INVALID", "was revoked");
  });

  test("is refused from the moment of its expiry on", async () => {
    const { key, stored } = makeKey({ expiresAt: new Date(start + 1_000) });
    const { bearer, clock } = setUp([stored]);
    clock.ms = start + 999;
    await bearer(key);
    clock.ms = start + 1_000;
    await expectRefusal(bearer(key), "UNAUTHENTICATED", "CREDENTIAL_INVALID", "expired at 2030");
  });

  test("may not name a tenant", async () => {
    const { key, stored } = makeKey();
    const { bearer } = setUp([stored]);
    await expectRefusal(
      bearer(key, { "licet-tenant": "tradsys" }),
      "PERMISSION_DENIED",
      "SCOPE_MISSING",
      "licet-tenant",
    );
  });
});

describe("a key that was proved before", () => {
  test("is known at once by the same header, until an event or its expiry ends it", async () => {
    const used: string[] = [];
    const { key, stored } = makeKey({ expiresAt: new Date(start + 1_000) });
    const { credentials, bearer, clock } = setUp([stored], { used: (keyId) => void used.push(keyId) });
    const authorization = `Bearer ${key}`;
    expect(credentials.authenticateNow({ authorization })).toBeUndefined();
    const credential = await bearer(key);
    expect(credentials.authenticateNow({ authorization })).toBe(credential);
    expect(await bearer(key)).toBe(credential);
    expect(used).toEqual([stored.keyId, stored.keyId, stored.keyId]);
    expect(credentials.authenticateNow({ authorization: `Bearer ${key.slice(0, -1)}_` })).toBeUndefined();
    expect(credentials.authenticateNow({ "x-api-key": authorization })).toBeUndefined();
    expect(credentials.authenticateNow({ authorization, "licet-tenant": "nectar" })).toBeUndefined();
    expect(credentials.authenticateNow({})).toBeUndefined();

    credentials.apply({ ...stored, version: 2n, scopes: ["catalog:read"] });
    expect(credentials.authenticateNow({ authorization })).toBeUndefined();
    await bearer(key);
    expect(credentials.authenticateNow({ authorization })?.scopes).toEqual(new Set(["catalog:read"]));
    clock.ms += 1_000;
    expect(credentials.authenticateNow({ authorization })).toBeUndefined();
    await expectRefusal(bearer(key), "UNAUTHENTICATED", "CREDENTIAL_INVALID", "expired");
    clock.ms -= 1_000;
    await bearer(key);
    credentials.apply({ ...stored, version: 3n, revoked: true });
    expect(credentials.authenticateNow({ authorization })).toBeUndefined();
    await expectRefusal(bearer(key), "UNAUTHENTICATED", "CREDENTIAL_INVALID", "revoked");
  });
});

describe("look-ups", () => {
  test("ask once for a key, however many calls carry it", async () => {
    const { key, stored } = makeKey();
    const { bearer, asked } = setUp([stored]);
    await Promise.all(Array.from({ length: 50 }, () => bearer(key)));
    await bearer(key);
    expect(asked).toEqual([stored.keyId]);
  });

  test("remember an unknown key until its time is over", async () => {
    const { key, stored } = makeKey();
    const { bearer, asked, clock, store } = setUp([], { negativeTtlMs: 5_000 });
    await refusal(bearer(key));
    store.set(stored.keyId, stored);
    clock.ms += 4_999;
    await refusal(bearer(key));
    expect(asked).toHaveLength(1);
    clock.ms += 1;
    await bearer(key);
    expect(asked).toHaveLength(2);
  });

  test("an event ends the time of an unknown key at once", async () => {
    const { key, stored } = makeKey();
    const { credentials, bearer, asked } = setUp();
    await refusal(bearer(key));
    credentials.apply(stored);
    await bearer(key);
    expect(asked).toHaveLength(1);
  });

  test("that fail reach the caller and are not remembered", async () => {
    const { key, stored } = makeKey();
    let attempts = 0;
    const { bearer } = setUp([], {
      resolve: async () => {
        if (attempts++ === 0) throw new Error("licensing is away");
        return stored;
      },
    });
    await expect(bearer(key)).rejects.toThrow("licensing is away");
    expect((await bearer(key)).id).toBe(stored.keyId);
  });

  test("do not bring back what an event changed meanwhile", async () => {
    const { key, stored } = makeKey();
    const { promise: held, resolve: release } = Promise.withResolvers<StoredCredential>();
    const { credentials, bearer } = setUp([], { resolve: () => held });
    const waiting = refusal(bearer(key));
    credentials.apply({ ...stored, version: 2n, revoked: true });
    release(stored);
    expect((await waiting).message).toContain("was revoked");
  });

  test("that find nothing do not hide what an event brought meanwhile", async () => {
    const { key, stored } = makeKey();
    const { promise: held, resolve: release } = Promise.withResolvers<undefined>();
    const { credentials, bearer } = setUp([], { resolve: () => held });
    const waiting = bearer(key);
    credentials.apply(stored);
    release(undefined);
    expect((await waiting).id).toBe(stored.keyId);
  });
});

describe("events", () => {
  test("apply by version only, whatever their order", async () => {
    const { key, stored } = makeKey();
    const { credentials, bearer } = setUp();
    credentials.apply({ ...stored, version: 3n, revoked: true });
    credentials.apply({ ...stored, version: 2n });
    credentials.apply({ ...stored, version: 3n });
    expect((await refusal(bearer(key))).message).toContain("was revoked");
    credentials.apply({ ...stored, version: 4n, scopes: ["usage:read"] });
    expect((await bearer(key)).scopes).toEqual(new Set(["usage:read"]));
  });
});

describe("the mesh key", () => {
  const mesh = { key: "mesh-secret", scopes: ["mesh"] };

  test("names the tenant it acts for, or none", async () => {
    const { bearer, asked } = setUp([], { mesh });
    expect(await bearer("mesh-secret", { "licet-tenant": "nectar" })).toEqual({
      id: "mesh",
      tenant: "nectar",
      role: "mesh",
      scopes: new Set(["mesh"]),
      kind: "mesh",
    });
    expect((await bearer("mesh-secret")).tenant).toBe(PLATFORM_TENANT);
    expect(asked).toEqual([]);
  });

  test.each(["", "a b", "a/b", "x".repeat(64)])("may not name %j", async (tenant) => {
    const { bearer } = setUp([], { mesh });
    await expectRefusal(
      bearer("mesh-secret", { "licet-tenant": tenant }),
      "UNAUTHENTICATED",
      "CREDENTIAL_INVALID",
      "licet-tenant",
    );
  });

  test("can't be told from an API key that looks like it, and is refused", () => {
    expect(() => setUp([], { mesh: { ...mesh, key: generateApiKey().key } })).toThrow("form of an API key");
  });

  test("means nothing where none is set, and a part of it means nothing at all", async () => {
    await expectRefusal(setUp().bearer("mesh-secret"), "UNAUTHENTICATED", "CREDENTIAL_INVALID", "");
    await expectRefusal(setUp([], { mesh }).bearer("mesh-secre"), "UNAUTHENTICATED", "CREDENTIAL_INVALID", "malformed");
  });
});

import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { CredentialChangedSchema } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { createLicensingCredentials } from "@licet/mesh/credentials";
import { parseApiKey } from "@licet/platform/credentials";
import { asSystem } from "@licet/platform/database/database";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { ATTEMPTS } from "@licet/platform/testing/patient";
import { until } from "@licet/platform/testing/until";
import { sql } from "kysely";
import { scopesOf } from "../src/domain/roles.ts";
import { type Harness, seedTenant, startHarness } from "./harness.ts";

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await seedTenant(harness, "acme");
  // The contract's rule that a key ends in the future goes by the real clock.
  harness.clock.now = new Date();
});
afterAll(() => harness.stop());

const admin = () => harness.as("acme", "admin").tenants;
const logger = createLogger({ level: "silent", name: "test" });
const seconds = (count: number) => {
  harness.clock.now = new Date(harness.clock.now.getTime() + count * 1_000);
};

/** The credentials of a replica that hears no events: it knows what it asked licensing for. */
const deafReplica = () =>
  createLicensingCredentials({
    licensing: harness.transport("_platform", "mesh"),
    meshKey: "m".repeat(32),
    logger,
    now: () => harness.clock.now.getTime(),
  });

type Replica = ReturnType<typeof deafReplica>;

/** How a replica answers whoever presents a key: with the scopes it holds, or the reason. */
async function present(replica: Replica, key: string, attempts = ATTEMPTS): Promise<string> {
  try {
    const { scopes } = await replica.authenticate(new Headers({ "x-api-key": key }));
    return [...scopes].join(" ");
  } catch (error) {
    const { reason } = error as { reason: string };
    // Licensing has a second to answer, which a machine that stands still is too slow for.
    return reason === "DEPENDENCY_UNAVAILABLE" && attempts > 1 ? present(replica, key, attempts - 1) : reason;
  }
}

/** Reports again until it has shown: licensing has a second to answer, and what fails is kept. */
async function report(replica: Replica, shows: () => Promise<boolean>): Promise<void> {
  await until("a report has shown", async () => {
    await replica.use.report();
    return shows();
  });
}

async function issue(scopes: string[] = [], more: { expiresAt?: Date } = {}) {
  const { apiKey, secret } = await admin().createApiKey({
    requestId: newId(),
    name: "gateway",
    role: ApiKeyRole.PRODUCT,
    scopes,
    ...(more.expiresAt && { expiresAt: timestampFromDate(more.expiresAt) }),
  });
  return { keyId: apiKey?.keyId ?? "", apiKey, secret };
}

const listed = async (keyId: string) =>
  (await admin().listApiKeys({ pageSize: 500 })).apiKeys.find((key) => key.keyId === keyId);

describe("scopes", () => {
  test("are all of the role's, or those that were asked for, everywhere", async () => {
    const [whole, narrow] = [await issue(), await issue(["usage:write"])];
    expect(whole.apiKey?.scopes).toEqual(scopesOf.product);
    expect(narrow.apiKey?.scopes).toEqual(["usage:write"]);
    expect((await listed(narrow.keyId))?.scopes).toEqual(["usage:write"]);
    const replica = deafReplica();
    expect(await present(replica, whole.secret)).toBe("features:check usage:write");
    expect(await present(replica, narrow.secret)).toBe("usage:write");
    await harness.licensing.drain();
    const event = harness.published.find(({ key }) => key === narrow.keyId);
    expect(fromBinary(CredentialChangedSchema, event?.value ?? new Uint8Array()).scopes).toEqual(["usage:write"]);
  });

  test.each([
    ["an unknown one", ["usage:write", "usage:destroy"], "scopes[1]", "usage:destroy is no scope"],
    ["one beyond the role", ["licenses:read"], "scopes[0]", "licenses:read is beyond the role product"],
    ["the mesh's", ["mesh"], "scopes[0]", "mesh is no scope"],
    ["one twice", ["usage:write", "usage:write"], "scopes", "unique"],
    ["an empty one", [""], "scopes[0]", "at least 1"],
  ])("%s is refused, and nothing is written", async (_what, scopes, field, text) => {
    const before = (await admin().listApiKeys({})).apiKeys.length;
    await expect(issue(scopes)).rejects.toMatchObject({
      reason: "INVALID_FIELD",
      violations: [{ field, description: expect.stringContaining(text) }],
    });
    expect((await admin().listApiKeys({})).apiKeys).toHaveLength(before);
  });

  test("nobody issues or rotates a key that may do more than their own", async () => {
    const { keyId } = await issue();
    const keeper = createClient(TenantService, harness.transport("acme", "admin", ["keys:write", "usage:write"]));
    const wanted = { requestId: newId(), name: "more", role: ApiKeyRole.PRODUCT };
    const refused = {
      code: "PERMISSION_DENIED",
      reason: "SCOPE_MISSING",
      metadata: { required_scope: "features:check" },
    };
    await expect(keeper.createApiKey(wanted)).rejects.toMatchObject(refused);
    await expect(keeper.rotateApiKey({ requestId: newId(), keyId })).rejects.toMatchObject(refused);
    expect((await listed(keyId))?.replacedBy).toBe("");
    const { apiKey } = await keeper.createApiKey({ ...wanted, scopes: ["usage:write"] });
    expect(apiKey?.scopes).toEqual(["usage:write"]);
  });
});

describe("RotateApiKey", () => {
  test("gives a key that may do the same; the old one is good for the overlap and then refused by who heard nothing since", async () => {
    const old = await issue(["usage:write"]);
    const request = { requestId: newId(), keyId: old.keyId, overlapSeconds: 3_600 };
    const { apiKey, secret, replaced } = await admin().rotateApiKey(request);
    expect(apiKey).toMatchObject({
      name: "gateway",
      role: ApiKeyRole.PRODUCT,
      scopes: ["usage:write"],
      replacedBy: "",
    });
    expect(apiKey?.keyId).not.toBe(old.keyId);
    const end = new Date(harness.clock.now.getTime() + 3_600_000);
    expect(replaced).toMatchObject({ keyId: old.keyId, replacedBy: apiKey?.keyId, expiresAt: timestampFromDate(end) });
    expect((await listed(old.keyId))?.replacedBy).toBe(apiKey?.keyId);
    // The same again on repetition, though the old key is replaced meanwhile.
    expect((await admin().rotateApiKey(request)).secret).toBe(secret);

    const replica = deafReplica();
    expect(await present(replica, old.secret)).toBe("usage:write");
    expect(await present(replica, secret)).toBe("usage:write");
    seconds(3_599);
    expect(await present(replica, old.secret)).toBe("usage:write");
    seconds(1);
    expect(await present(replica, old.secret)).toBe("CREDENTIAL_INVALID");
    expect(await present(replica, secret)).toBe("usage:write");
  });

  test("tells both keys in events, with the end of the old one and no secret", async () => {
    const old = await issue();
    const { apiKey, secret, replaced } = await admin().rotateApiKey({ requestId: newId(), keyId: old.keyId });
    expect(replaced?.expiresAt && timestampDate(replaced.expiresAt)).toEqual(
      new Date(harness.clock.now.getTime() + 86_400_000),
    );
    await harness.licensing.drain();
    const heard = (keyId = "") =>
      harness.published
        .filter(({ topic, key }) => topic === "licet.credentials.v1" && key === keyId)
        .map(({ value }) => fromBinary(CredentialChangedSchema, value));
    expect(heard(old.keyId)).toMatchObject([{ version: 1n }, { version: 2n, expiresAt: replaced?.expiresAt }]);
    expect(heard(apiKey?.keyId).map(({ version, expiresAt }) => [version, expiresAt])).toEqual([[1n, undefined]]);
    const text = parseApiKey(secret)?.secret ?? "";
    for (const { value } of harness.published) expect(Buffer.from(value).includes(text)).toBe(false);
    const { rows } = await asSystem(harness.database.databases, (tx) =>
      sql<{ reply: Buffer }>`SELECT reply FROM idempotency`.execute(tx),
    );
    expect(rows.filter(({ reply }) => reply.includes(text))).toEqual([]);
  });

  test("an overlap of 0 ends the old key at once; its own earlier end stays, and the new key has it too", async () => {
    const [ended, ending] = [await issue(), await issue([], { expiresAt: new Date(Date.now() + 86_400_000) })];
    const { replaced } = await admin().rotateApiKey({ requestId: newId(), keyId: ended.keyId, overlapSeconds: 0 });
    expect(replaced?.expiresAt).toEqual(timestampFromDate(harness.clock.now));
    expect(await present(deafReplica(), ended.secret)).toBe("CREDENTIAL_INVALID");
    const rotated = await admin().rotateApiKey({ requestId: newId(), keyId: ending.keyId, overlapSeconds: 2_592_000 });
    expect(rotated.replaced?.expiresAt).toEqual(ending.apiKey?.expiresAt);
    expect(rotated.apiKey?.expiresAt).toEqual(ending.apiKey?.expiresAt);
  });

  test("a key that has ended or is being replaced is refused with its status, an overlap too long with its field", async () => {
    const [revoked, expired, replaced] = [
      await issue(),
      await issue([], { expiresAt: new Date(Date.now() + 60_000) }),
      await issue(),
    ];
    await admin().revokeApiKey({ requestId: newId(), keyId: revoked.keyId });
    await admin().rotateApiKey({ requestId: newId(), keyId: replaced.keyId });
    const rotate = (keyId: string) => admin().rotateApiKey({ requestId: newId(), keyId });
    const refused = (status: string) => ({
      code: "FAILED_PRECONDITION",
      reason: "API_KEY_NOT_IN_FORCE",
      metadata: { status },
    });
    await expect(rotate(revoked.keyId)).rejects.toMatchObject(refused("revoked"));
    await expect(rotate(replaced.keyId)).rejects.toMatchObject(refused("replaced"));
    const now = harness.clock.now;
    harness.clock.now = new Date(Date.now() + 60_001);
    await expect(rotate(expired.keyId)).rejects.toMatchObject(refused("expired"));
    harness.clock.now = now;
    const long = { requestId: newId(), keyId: expired.keyId, overlapSeconds: 2_592_001 };
    await expect(admin().rotateApiKey(long)).rejects.toMatchObject({ violations: [{ field: "overlap_seconds" }] });
  });

  test("another tenant's key is not found", async () => {
    await seedTenant(harness, "other");
    const { keyId } = await issue();
    const other = harness.as("other", "admin").tenants;
    await expect(other.rotateApiKey({ requestId: newId(), keyId })).rejects.toMatchObject({
      reason: "API_KEY_NOT_FOUND",
    });
  });

  test("of twenty at once one replaces the key, and the others are told so", async () => {
    const { keyId } = await issue();
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, () => admin().rotateApiKey({ requestId: newId(), keyId })),
    );
    const done = outcomes.filter(({ status }) => status === "fulfilled");
    expect(done).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ metadata: { status: "replaced" } });
    }
    const { apiKeys } = await admin().listApiKeys({ pageSize: 500 });
    const next = apiKeys.find((key) => key.keyId === keyId)?.replacedBy;
    expect(next).toBe((done[0] as PromiseFulfilledResult<{ apiKey?: { keyId: string } }>).value.apiKey?.keyId);
  });
});

describe("the use of keys", () => {
  test("is told by every replica, and the latest is shown", async () => {
    const { keyId, secret } = await issue();
    expect((await listed(keyId))?.lastUsedAt).toBeUndefined();
    const [one, two] = [deafReplica(), deafReplica()];
    await present(one, secret);
    await report(one, async () => (await listed(keyId))?.lastUsedAt !== undefined);
    seconds(600);
    await present(two, secret);
    const last = harness.clock.now;
    await report(two, async () => shown(await listed(keyId)) > last.getTime() - 60_000);
    // A report that comes late tells of an earlier use: it changes nothing.
    const mesh = harness.as("_platform", "mesh").tenants;
    await mesh.reportApiKeyUse({ uses: [{ keyId, usedAgoMs: 500_000n, version: 1n }] });
    expect(shown(await listed(keyId))).toBeGreaterThan(last.getTime() - 60_000);
  });

  test("is no use of the key when it is refused", async () => {
    const { keyId } = await issue();
    const replica = deafReplica();
    await present(replica, `${keyId}.${"x".repeat(43)}`);
    await replica.use.stop();
    expect((await listed(keyId))?.lastUsedAt).toBeUndefined();
  });

  test("brings a replica that hears no events what has changed", async () => {
    const { keyId, secret } = await issue();
    const replica = deafReplica();
    expect(await present(replica, secret)).toBe("features:check usage:write");
    await admin().rotateApiKey({ requestId: newId(), keyId, overlapSeconds: 60 });
    await replica.use.report();
    seconds(60);
    await report(replica, async () => (await present(replica, secret)) === "CREDENTIAL_INVALID");
  });

  test("of keys that nobody knows is passed over; two replicas that tell many at once don't stand in each other's way", async () => {
    const mesh = harness.as("_platform", "mesh").tenants;
    const keys = await Promise.all(Array.from({ length: 30 }, () => issue()));
    const uses = [
      ...keys.map(({ keyId }) => ({ keyId, usedAgoMs: 0n, version: 1n })),
      { keyId: "lct_none", usedAgoMs: 0n },
    ];
    const reports = Array.from({ length: 10 }, (_, index) =>
      mesh.reportApiKeyUse({ uses: index % 2 ? uses : uses.toReversed() }),
    );
    for (const { changed } of await Promise.all(reports)) expect(changed).toEqual([]);
    for (const { keyId } of keys) expect((await listed(keyId))?.lastUsedAt).toBeDefined();
  });

  test("is told by services only", async () => {
    await expect(admin().reportApiKeyUse({ uses: [{ keyId: "x" }] })).rejects.toMatchObject({
      reason: "SCOPE_MISSING",
    });
  });
});

function shown(key: Awaited<ReturnType<typeof listed>>): number {
  return key?.lastUsedAt ? timestampDate(key.lastUsedAt).getTime() : 0;
}

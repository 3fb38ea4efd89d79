import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { DescMethod, DescMethodUnary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import {
  ActivationService,
  type CheckKeyResponse,
  KeyReason,
} from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { KeyFormat } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { InstanceType } from "@licet/contracts/licet/licensing/v1/seat_pb";
import { inTenant, openDatabase } from "@licet/platform/database/database";
import type { ServiceError } from "@licet/platform/errors";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { isPublic } from "@licet/platform/rpc/call";
import { createChannel } from "@licet/platform/rpc/client";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import { PATIENT_MS, patient } from "@licet/platform/testing/patient";
import { until } from "@licet/platform/testing/until";
import { sql } from "kysely";
import { newOpaqueKey, OPAQUE_KEY_BYTES } from "../src/domain/opaque-key.ts";
import { createKeyCalls } from "../src/key-calls.ts";
import type { Licensing } from "../src/service.ts";
import type { DB } from "../src/store/schema.ts";
import { createPurge } from "../src/workers/purge.ts";
import { type Harness, type ServedHarness, seedTenant, startHarness } from "./harness.ts";

/** Calls a day of a key, in this suite. */
const LIMIT = 300;
const ATTEMPTS = 20;
const product = "seo";
/** Well formed, and no key of anybody's. */
const unknownKey = newOpaqueKey("RM", new Uint8Array(OPAQUE_KEY_BYTES));

let harness: Harness;
let served: ServedHarness;
let instances: Licensing[] = [];
beforeAll(async () => {
  harness = await startHarness({}, { perKeyAndDay: LIMIT, attemptsPerMinute: ATTEMPTS });
  served = await harness.serve();
  const { catalog } = await seedTenant(harness, "rankmath");
  const style = { keyFormat: KeyFormat.OPAQUE, keyPrefix: "RM" };
  await catalog.createProduct({ requestId: newId(), product, name: "SEO", ...style });
  const terms = { type: 2, features: ["*"] };
  await catalog.createPlan({ requestId: newId(), product, plan: "basic", name: "Basic", terms });
});
afterEach(async () => {
  await Promise.all(instances.map((instance) => instance.stop()));
  instances = [];
  // The next minute, so that one test's attempts are none of the next one's.
  harness.clock.now = new Date((Math.floor(harness.clock.now.getTime() / 60_000) + 1) * 60_000);
});
afterAll(async () => {
  await served.stop(0);
  await harness.stop();
});

/** A new license key; `keyId` is its id. */
async function newKey(): Promise<{ key: string; keyId: string }> {
  const { customers, licenses } = harness.as("rankmath", "brand");
  const { customer } = await customers.createCustomer({ requestId: newId(), name: "C" });
  const { key, keySecret } = await licenses.provisionLicense({
    requestId: newId(),
    customerId: customer?.customerId ?? "",
    product: "seo",
    plan: "basic",
    key: { case: "issueKey", value: true },
  });
  return { key: keySecret, keyId: key?.keyId ?? "" };
}

function replica(): Licensing {
  const instance = harness.instance();
  instances.push(instance);
  return instance;
}

/** Asks until it is refused, by so many callers at once. @returns how many calls were let through */
async function exhaust(ask: () => Promise<CheckKeyResponse>, callers: number): Promise<number> {
  let admitted = 0;
  await Promise.all(
    Array.from({ length: callers }, async () => {
      for (;;) {
        try {
          expect((await ask()).reason).toBe(KeyReason.PERMITTED);
          admitted++;
        } catch (error) {
          expect(error).toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "RATE_LIMITED" });
          return;
        }
      }
    }),
  );
  return admitted;
}

async function takenOf(keyId: string): Promise<number[]> {
  const { rows } = await inTenant(harness.database.databases, "rankmath", (tx) =>
    sql<{ taken: number }>`SELECT taken FROM license_key_calls WHERE key_id = ${keyId}::uuid ORDER BY day`.execute(tx),
  );
  return rows.map(({ taken }) => taken);
}

/** Runs `work` while nobody else can touch a table. */
async function locked(
  { database }: Harness,
  table: string,
  work: (isWaitedFor: () => Promise<boolean>) => Promise<void>,
): Promise<void> {
  await database.asSuperuser(async (client) => {
    await client.query(`BEGIN; LOCK TABLE ${table}`);
    await work(async () => {
      const waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = $1::regclass";
      return ((await client.query(waiting, [table])).rowCount ?? 0) > 0;
    });
  });
}

/** The limit's headers, as numbers. */
function told(headers: Headers): [number, number, number] {
  const of = (name: string) => Number(headers.get(`ratelimit-${name}`) ?? Number.NaN);
  return [of("limit"), of("remaining"), of("reset")];
}

describe("the calls of a key", () => {
  test("are exactly the limit over two replicas, however many callers ask both at once", async () => {
    const { key } = await newKey();
    const replicas = [replica(), replica()].map((instance) => harness.installedOf(instance));
    const admitted = await Promise.all(
      replicas.map((installed) => exhaust(() => installed.checkKey({ key, product }), 25)),
    );
    expect(admitted[0]).toBeGreaterThan(0);
    expect(admitted[1]).toBeGreaterThan(0);
    expect((admitted[0] ?? 0) + (admitted[1] ?? 0)).toBe(LIMIT);
  });

  test("come again with the next day of UTC", async () => {
    const { key } = await newKey();
    const before = harness.clock.now;
    harness.clock.now = new Date("2026-12-01T23:59:30Z");
    const ask = () => harness.installed.checkKey({ key, product });
    expect(await exhaust(ask, 5)).toBe(LIMIT);
    harness.clock.now = new Date("2026-12-02T00:00:00Z");
    expect(await exhaust(ask, 5)).toBe(LIMIT);
    harness.clock.now = before;
  });

  test("are counted on by a replica that is started anew; one that ends gives back what it held", async () => {
    const { key, keyId } = await newKey();
    const first = replica();
    for (let call = 0; call < 20; call++) await harness.installedOf(first).checkKey({ key, product });
    expect((await takenOf(keyId))[0]).toBeGreaterThan(20);
    await first.stop();
    instances = [];
    expect(await takenOf(keyId)).toEqual([20]);
    const next = harness.installedOf(replica());
    expect(await exhaust(() => next.checkKey({ key, product }), 5)).toBe(LIMIT - 20);
  });

  test("that a killed replica held are lost, and no more than that", async () => {
    const { key, keyId } = await newKey();
    const killed = harness.installedOf(replica());
    for (let call = 0; call < 20; call++) await killed.checkKey({ key, product });
    const [taken = 0] = await takenOf(keyId);
    const next = harness.installedOf(replica());
    expect(await exhaust(() => next.checkKey({ key, product }), 5)).toBe(LIMIT - taken);
    expect(taken - 20).toBeLessThanOrEqual(64);
  });

  test("that a replica holds and does not use go to another one: the last ones are not stranded", async () => {
    const { key, keyId } = await newKey();
    const resting = replica();
    for (let call = 0; call < 20; call++) await harness.installedOf(resting).checkKey({ key, product });
    const busy = harness.installedOf(replica());
    const ask = () => busy.checkKey({ key, product });
    const admitted = await exhaust(ask, 5);
    expect(admitted).toBeLessThan(LIMIT - 20);
    // The other one rests, and its end gives back; the busy one asks again after a while.
    await resting.stop();
    instances = instances.filter((instance) => instance !== resting);
    expect(await takenOf(keyId)).toEqual([20 + admitted]);
    harness.clock.now = new Date(harness.clock.now.getTime() + 10_000);
    expect(admitted + (await exhaust(ask, 5))).toBe(LIMIT - 20);
  });

  test("cost one write for many, few where a product asks now and then, and none once there are no more", async () => {
    const [often, seldom] = [await newKey(), await newKey()];
    await harness.installed.checkKey({ key: seldom.key, product });
    expect(await takenOf(seldom.keyId)).toEqual([1]);
    await exhaust(() => harness.installed.checkKey({ key: often.key, product }), 1);
    await harness.database.databases.system.transaction().execute(async (tx) => {
      // While nobody can write the counts, a refusal must not wait for it.
      await sql`SELECT FROM license_key_calls FOR UPDATE`.execute(tx);
      for (let call = 0; call < 50; call++) {
        await expect(harness.installed.checkKey({ key: often.key, product })).rejects.toMatchObject({
          reason: "RATE_LIMITED",
        });
      }
    });
  });

  test("of past days are purged, those of yesterday kept", async () => {
    const { key, keyId } = await newKey();
    const day = 86_400_000;
    const before = harness.clock.now;
    for (const days of [0, 1, 2]) {
      harness.clock.now = new Date(before.getTime() + days * day);
      await harness.installed.checkKey({ key, product });
    }
    expect(await takenOf(keyId)).toHaveLength(3);
    const purge = createPurge(
      harness.database.databases,
      () => harness.clock.now,
      createLogger({ level: "silent", name: "t" }),
    );
    await purge.round();
    expect(await takenOf(keyId)).toHaveLength(2);
    harness.clock.now = before;
  });

  test("are purged also while something else can't be", async () => {
    const { key, keyId } = await newKey();
    await harness.installed.checkKey({ key, product });
    const { databases, url } = harness.database;
    await harness.database.asSuperuser((client) =>
      client.query(`INSERT INTO import (tenant_id, import_id, kind, format, dry_run, on_existing, updated_at)
        VALUES ('rankmath', 'old', 'customers', 'csv', false, 'fail', now() - interval '31 days')`),
    );
    const later = new Date(harness.clock.now.getTime() + 3 * 86_400_000);
    // With a service's limits: it does not wait for the row for long.
    const system = openDatabase<DB>({ url: url("licet_system"), applicationName: "purge", maxConnections: 1 });
    const purge = createPurge({ ...databases, system }, () => later, createLogger({ level: "silent", name: "t" }));
    await inTenant(databases, "rankmath", async (tx) => {
      await tx.selectFrom("import").select("import_id").forUpdate().execute();
      await purge.round();
    });
    await system.destroy();
    expect(await takenOf(keyId)).toEqual([]);
  });
});

describe("the counts of a replica", () => {
  const options = () => ({
    db: harness.database.databases,
    limit: LIMIT,
    now: () => harness.clock.now,
    logger: createLogger({ level: "silent", name: "test" }),
  });

  test("are given back for keys that rest, and taken anew", async () => {
    const keyId = newId();
    const calls = createKeyCalls(options());
    for (let call = 0; call < 10; call++) await calls.take({ tenantId: "rankmath", keyId });
    expect(await takenOf(keyId)).toEqual([15]);
    await calls.sweep();
    expect(await takenOf(keyId)).toEqual([15]);
    harness.clock.now = new Date(harness.clock.now.getTime() + 30_000);
    await calls.sweep();
    expect(await takenOf(keyId)).toEqual([10]);
    expect(await calls.take({ tenantId: "rankmath", keyId })).toMatchObject({ taken: true, remaining: LIMIT - 11 });
    await calls.stop();
    expect(await takenOf(keyId)).toEqual([11]);
  });

  test("are bounded: what a key held that had to go is given back", async () => {
    const keyIds = Array.from({ length: 30 }, newId);
    const calls = createKeyCalls({ ...options(), maxKeys: 10 });
    for (let round = 0; round < 3; round++) {
      for (const keyId of keyIds) for (let i = 0; i < 4; i++) await calls.take({ tenantId: "rankmath", keyId });
    }
    await calls.stop();
    for (const keyId of keyIds) expect(await takenOf(keyId)).toEqual([12]);
  });
});

/** A call of CheckKey by curl, with the headers as it prints them. */
async function curl(body: string): Promise<{ status: number; headers: Headers; body: string }> {
  const url = `${served.webUrl}/licet.licensing.v1.ActivationService/CheckKey`;
  const { stdout } = await promisify(execFile)("curl", [
    "-sSi",
    "-H",
    "content-type: application/json",
    "-H",
    `connect-timeout-ms: ${PATIENT_MS}`,
    "-d",
    body,
    url,
  ]);
  const [head = "", text = ""] = stdout.split("\r\n\r\n");
  const [status = "", ...lines] = head.split("\r\n");
  const headers = new Headers(
    lines.map((line): [string, string] => [line.split(": ")[0] ?? "", line.split(": ")[1] ?? ""]),
  );
  return { status: Number(status.split(" ")[1]), headers, body: text };
}

describe("what a caller is told", () => {
  test("by curl: the headers of every answer; beyond the limit 429 with retry-after and RetryInfo", async () => {
    const { key } = await newKey();
    const post = () => curl(JSON.stringify({ key, product }));
    const reset = Math.ceil((86_400_000 - (harness.clock.now.getTime() % 86_400_000)) / 1_000);
    const first = await post();
    expect(first.status).toBe(200);
    expect(told(first.headers)).toEqual([LIMIT, LIMIT - 1, reset]);
    expect(told((await post()).headers)).toEqual([LIMIT, LIMIT - 2, reset]);
    await exhaust(() => harness.installed.checkKey({ key, product }), 5);
    const refused = await post();
    expect(refused.status).toBe(429);
    expect(told(refused.headers)).toEqual([LIMIT, 0, reset]);
    expect(refused.headers.get("retry-after")).toBe(String(reset));
    const { code, details } = JSON.parse(refused.body) as { code: string; details: { type: string; debug: unknown }[] };
    expect(code).toBe("resource_exhausted");
    expect(details).toMatchObject([
      { type: "google.rpc.ErrorInfo", debug: { reason: "RATE_LIMITED", domain: "licet.dev" } },
      { type: "google.rpc.RetryInfo", debug: { retryDelay: expect.stringMatching(/^\d+(\.\d+)?s$/) } },
    ]);
  });

  test("by gRPC: the same in the metadata", async () => {
    const { key } = await newKey();
    const channel = createChannel({ address: served.grpcAddress });
    const grpc = createClient(ActivationService, patient(channel));
    let headers = new Headers();
    const onHeader = (received: Headers) => {
      headers = received;
    };
    await grpc.checkKey({ key, product }, { onHeader });
    expect(told(headers).slice(0, 2)).toEqual([LIMIT, LIMIT - 1]);
    await exhaust(() => grpc.checkKey({ key, product }), 5);
    const refused = await grpc.checkKey({ key, product }).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "RESOURCE_EXHAUSTED", retryAfterMs: expect.any(Number) });
    channel.close();
  });
});

describe("calls with keys that are none", () => {
  const post = (key: string) =>
    fetch(`${served.webUrl}/licet.licensing.v1.ActivationService/CheckKey`, {
      method: "POST",
      headers: { "content-type": "application/json", "connect-timeout-ms": `${PATIENT_MS}` },
      body: JSON.stringify({ key, product }),
    });

  test("are so many a minute from one address, whatever is wrong with them; keys that were found before work on", async () => {
    const { key } = await newKey();
    expect((await post(key)).status).toBe(200);
    const wrong = [
      "RM-0000-0000-0000-0000-B",
      "nonsense",
      `NLS-${"e30".repeat(3)}.e30.AAAA-00000000`,
      `RM-${"0".repeat(16)}`,
    ];
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const response = await post(wrong[attempt % wrong.length] ?? "");
      expect(response.status).toBe(200);
      expect(told(response.headers)).toEqual([ATTEMPTS, ATTEMPTS - 1 - attempt, 60]);
    }
    for (const text of wrong) {
      const refused = await post(text);
      expect(refused.status).toBe(429);
      expect(refused.headers.get("retry-after")).toBe("60");
      expect(told(refused.headers)).toEqual([ATTEMPTS, 0, 60]);
    }
    const good = await post(key);
    expect(good.status).toBe(200);
    expect(told(good.headers)[0]).toBe(LIMIT);
    harness.clock.now = new Date(harness.clock.now.getTime() + 60_000);
    expect((await post("nonsense")).status).toBe(200);
  });

  test("don't count keys that are found", async () => {
    for (let key = 0; key < ATTEMPTS + 5; key++) expect((await post((await newKey()).key)).status).toBe(200);
    expect(told((await post("nonsense")).headers)).toEqual([ATTEMPTS, ATTEMPTS - 1, 60]);
  });

  test("cost no look-up once they are too many", async () => {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) await post("nonsense");
    const { key } = await newKey();
    await locked(harness, "license_key", async () => {
      // While nobody can look a key up, a refusal must not wait for it.
      const responses = await Promise.all(Array.from({ length: 30 }, () => post(key)));
      expect(new Set(responses.map(({ status }) => status))).toEqual(new Set([429]));
    });
  });
});

describe("every public method that is called by a license key", () => {
  const methods = ActivationService.methods.filter(
    (method) =>
      isPublic(method) && method.input.fields.some(({ name }) => name === "key") && method.name !== "Heartbeat",
  );
  const instance = { type: InstanceType.HOSTNAME, id: "a" };
  const seat = { requestId: newId(), product, instance };
  /** What each needs beside the key; a new method without it fails here. */
  const samples: Readonly<Record<string, object>> = {
    CheckKey: { product },
    ActivateInstance: seat,
    DeactivateInstance: seat,
  };

  test("Heartbeat is not counted with the calls of a day", async () => {
    const { key } = await newKey();
    expect(await harness.installed.activateInstance({ key, ...seat })).toMatchObject({ valid: true });
    await exhaust(() => harness.installed.checkKey({ key, product }), 4);
    expect(await harness.installed.heartbeat({ key, ...seat })).toMatchObject({ valid: true });
  });

  test.each(methods.map((method): [string, DescMethod] => [method.name, method]))(
    "%s is limited",
    async (name, method) => {
      expect(Object.keys(samples)).toContain(name);
      const { key } = await newKey();
      await exhaust(() => harness.installed.checkKey({ key, product }), 5);
      const channel = createChannel({ address: served.grpcAddress });
      const call = patient(channel).unary(method as DescMethodUnary, undefined, undefined, undefined, {
        key,
        ...samples[name],
      } as never);
      await expect(call).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "RATE_LIMITED" });
      channel.close();
    },
  );
});

describe("a flood of public calls that hang", () => {
  let flooded: Harness;
  let ports: ServedHarness;
  beforeAll(async () => {
    flooded = await startHarness({}, { perKeyAndDay: 0, attemptsPerMinute: 0 });
    ports = await flooded.serve();
    await seedTenant(flooded, "acme");
  });
  afterAll(async () => {
    await ports.stop(0);
    await flooded.stop();
  });

  test("leaves the calls of those with API keys alone", async () => {
    const { customers, tenants } = flooded.as("acme", "admin");
    const mesh = flooded.as("_platform", "mesh").tenants;
    const [apiKey] = (await tenants.listApiKeys({})).apiKeys;
    const channel = createChannel({ address: ports.grpcAddress });
    const installed = createClient(ActivationService, channel);
    const reasons: unknown[] = [];
    await locked(flooded, "license_key", async (isWaitedFor) => {
      const flood = Array.from({ length: 400 }, () =>
        installed.checkKey({ key: unknownKey, product }).catch((error: ServiceError) => error.reason),
      );
      await until("look-ups wait for the lock", isWaitedFor);
      // Writes, reads, and the look-up of API keys on which all authenticated calls of a mesh depend.
      for (let round = 0; round < 10; round++) {
        await customers.createCustomer({ requestId: newId(), name: "C" });
        await customers.listCustomers({});
        await mesh.resolveCredential({ keyId: apiKey?.keyId ?? "" });
      }
      void Promise.all(flood).then((answers) => reasons.push(...answers));
    });
    await until("the flood is answered", () => reasons.length === 400);
    expect(reasons).toContain("OVERLOADED");
    channel.close();
  });
});

test("no row of all this shows without a tenant", async () => {
  expect(await isolationBreaches(harness.database)).toEqual([]);
});

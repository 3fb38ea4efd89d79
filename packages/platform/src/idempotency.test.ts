import { randomBytes } from "node:crypto";
import { fromJson, type JsonObject, type Message, toJson } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { sql } from "kysely";
import { createVault } from "./crypto.ts";
import { inTenant, setTenant } from "./database/database.ts";
import { ServiceError } from "./errors.ts";
import { type IdempotencyTables, purgeIdempotency, runOnce } from "./idempotency.ts";
import { createTestDatabase, type TestDatabase } from "./testing/database.ts";
import { exampleMigrations } from "./testing/example.ts";
import { methods, notes as notesService, response } from "./testing/notes-service.ts";

const { signal } = new AbortController();
const call = { tenant: "one", service: notesService, method: methods.write, signal };

const request = (fields: JsonObject) => fromJson(call.method.input, fields) as Message & { requestId: string };
const reply = (text: string) => fromJson(response, { text });
const textOf = (message: Message) => toJson(response, message);

let database: TestDatabase<IdempotencyTables>;
beforeAll(async () => {
  database = await createTestDatabase({ name: "idempotency", migrations: exampleMigrations });
});
afterAll(() => database.drop());

/** An effect in the database and a reply that differs from run to run. */
function writing(body: string) {
  return async (tx: Parameters<Parameters<typeof inTenant<IdempotencyTables, unknown>>[2]>[0]) => {
    await sql`INSERT INTO note (tenant_id, body) VALUES ('one', ${body})`.execute(tx);
    return reply(randomBytes(8).toString("hex"));
  };
}

async function notes(body: string): Promise<number> {
  const { rows } = await inTenant(database.databases, "one", (tx) =>
    sql<{ count: bigint }>`SELECT count(*) FROM note WHERE body = ${body}`.execute(tx),
  );
  return Number(rows[0]?.count);
}

const write = (fields: JsonObject, body = String(fields.body)) =>
  runOnce(database.databases, call, request(fields), response, writing(body));

describe("runOnce", () => {
  test("100 parallel calls with one key have one effect and one reply", async () => {
    const fields = { requestId: "parallel", body: "parallel" };
    const replies = await Promise.all(Array.from({ length: 100 }, () => write(fields)));
    expect(new Set(replies.map((message) => JSON.stringify(textOf(message)))).size).toBe(1);
    expect(await notes("parallel")).toBe(1);
  });

  test("a changed request under the same key is refused and has no effect", async () => {
    await write({ requestId: "changed", body: "before", amount: "1" });
    for (const other of [{ body: "after", amount: "1" }, { body: "before", amount: "2" }, { body: "before" }]) {
      const attempt = write({ requestId: "changed", ...other }, "never");
      await expect(attempt).rejects.toMatchObject({ code: "INVALID_ARGUMENT", reason: "REQUEST_ID_REUSED" });
      await expect(attempt).rejects.toMatchObject({ violations: [{ field: "request_id" }] });
    }
    expect(await notes("never")).toBe(0);
  });

  test("the order of a map's entries does not matter, their content does", async () => {
    const first = await write({ requestId: "map", body: "map", labels: { a: "1", b: "2" } });
    const second = await write({ requestId: "map", body: "map", labels: { b: "2", a: "1" } });
    expect(textOf(second)).toEqual(textOf(first));
    await expect(write({ requestId: "map", body: "map", labels: { a: "2", b: "1" } })).rejects.toThrow(ServiceError);
  });

  test("a key counts per tenant and per method", async () => {
    await write({ requestId: "scope", body: "scope" });
    const other = { ...call, method: methods.rewrite };
    await runOnce(database.databases, other, request({ requestId: "scope", body: "2" }), response, writing("scope"));
    const elsewhere = { ...call, tenant: "two" };
    await runOnce(database.databases, elsewhere, request({ requestId: "scope", body: "3" }), response, async () =>
      reply("x"),
    );
    expect(await notes("scope")).toBe(2);
  });

  test("a failed call stores nothing, so its key may be tried again", async () => {
    const failing = runOnce(database.databases, call, request({ requestId: "fails" }), response, async (tx) => {
      await writing("fails")(tx);
      throw new ServiceError({ code: "NOT_FOUND", reason: "PLANTED", message: "planted" });
    });
    await expect(failing).rejects.toMatchObject({ reason: "PLANTED" });
    expect(await notes("fails")).toBe(0);
    await write({ requestId: "fails", body: "another body" });
    expect(await notes("another body")).toBe(1);
  });

  test("nothing is begun for a caller who has left", async () => {
    const left = { ...call, signal: AbortSignal.abort(new Error("left")) };
    const attempt = runOnce(database.databases, left, request({ requestId: "left" }), response, writing("left"));
    await expect(attempt).rejects.toThrow("left");
    expect(await notes("left")).toBe(0);
  });

  test("an empty reply is repeated too", async () => {
    const empty = () =>
      runOnce(database.databases, call, request({ requestId: "empty" }), response, async () => reply(""));
    expect(textOf(await empty())).toEqual({});
    expect(textOf(await empty())).toEqual({});
  });

  test("work that leaves the transaction in another tenant is refused", async () => {
    const straying = runOnce(database.databases, call, request({ requestId: "strays" }), response, async (tx) => {
      await setTenant(tx, "two");
      return reply("x");
    });
    await expect(straying).rejects.toThrow("example.Notes/Write left the transaction in another tenant");
  });
});

describe("a secret reply", () => {
  const vault = createVault([{ id: "test", key: randomBytes(32) }], "test");
  const issue = (secret?: typeof vault) =>
    runOnce(
      database.databases,
      call,
      request({ requestId: "secret" }),
      response,
      async () => reply(`lct_${randomBytes(16).toString("hex")}`),
      secret === undefined ? {} : { secret },
    );

  test("is encrypted at rest and repeated in the clear", async () => {
    const first = textOf(await issue(vault)) as { text: string };
    const { rows } = await inTenant(database.databases, "one", (tx) =>
      sql<{ reply: Buffer; encrypted: boolean }>`SELECT reply, encrypted FROM idempotency WHERE key = 'secret'`.execute(
        tx,
      ),
    );
    expect(rows[0]?.encrypted).toBe(true);
    expect(rows[0]?.reply.includes(first.text)).toBe(false);
    expect(textOf(await issue(vault))).toEqual(first);
    await expect(issue()).rejects.toThrow("was given no vault");
  });

  test("does not open when its row is copied to another key", async () => {
    await issue(vault);
    await inTenant(database.databases, "one", (tx) =>
      sql`
        INSERT INTO idempotency (tenant_id, method, key, request_hash, reply, encrypted)
        SELECT tenant_id, method, 'copied', request_hash, reply, encrypted FROM idempotency WHERE key = 'secret'`.execute(
        tx,
      ),
    );
    const copied = runOnce(
      database.databases,
      call,
      request({ requestId: "copied" }),
      response,
      async () => reply("never"),
      { secret: vault },
    );
    await expect(copied).rejects.toThrow("sealed for another place");
  });
});

test("purge removes what is older than 30 days, in steps, of all tenants", async () => {
  const age = (key: string, tenant: string, days: number) =>
    inTenant(database.databases, tenant, (tx) =>
      sql`INSERT INTO idempotency (tenant_id, method, key, request_hash, created_at)
          VALUES (${tenant}, 'm', ${key}, '', now() - make_interval(days => ${days}))`.execute(tx),
    );
  for (const tenant of ["one", "two"]) {
    await age("old", tenant, 31);
    await age("older", tenant, 400);
    await age("young", tenant, 29);
  }
  expect(await purgeIdempotency(database.databases, 3)).toBe(3);
  expect(await purgeIdempotency(database.databases, 3)).toBe(1);
  expect(await purgeIdempotency(database.databases, 3)).toBe(0);
  const { rows } = await inTenant(database.databases, "two", (tx) =>
    sql`SELECT key FROM idempotency WHERE method = 'm'`.execute(tx),
  );
  expect(rows).toEqual([{ key: "young" }]);
});

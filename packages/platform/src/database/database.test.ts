import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { sql, type Transaction } from "kysely";
import pg from "pg";
import { createTestDatabase, type TestDatabase } from "../testing/database.ts";
import { exampleMigrations } from "../testing/example.ts";
import { isolationBreaches } from "../testing/isolation.ts";
import { binaryArray } from "./binary-array.ts";
import { asSystem, inTenant, openDatabase, setTenant } from "./database.ts";
import { dontWait, keepPlan } from "./session.ts";

let database: TestDatabase<unknown>;

beforeAll(async () => {
  database = await createTestDatabase({ name: "database", migrations: exampleMigrations });
});
afterAll(() => database.drop());

async function asSuperuser(text: string): Promise<pg.QueryResult> {
  const url = new URL(database.adminUrl);
  url.pathname = database.name;
  const client = new pg.Client({ connectionString: url.href });
  await client.connect();
  try {
    return await client.query(text);
  } finally {
    await client.end();
  }
}

const insert = (tenant: string, body: string) => sql`INSERT INTO note (tenant_id, body) VALUES (${tenant}, ${body})`;
const bodies = sql<{ body: string }>`SELECT body FROM note ORDER BY body`;

describe("types", () => {
  test("int8 is bigint, alone and in arrays; numeric and date are text; bytea is bytes", async () => {
    const { rows } = await sql`
      SELECT 9007199254740993::int8 AS i, ARRAY[1, NULL]::int8[] AS a, 1.10::numeric AS n, DATE '2026-01-31' AS d,
             '\\x00ff'::bytea AS b, 7::int4 AS small`.execute(database.databases.app);
    expect(rows).toEqual([
      { i: 9007199254740993n, a: [1n, null], n: "1.10", d: "2026-01-31", b: Buffer.from([0, 255]), small: 7 },
    ]);
  });

  test("arrays in the binary format are those that Postgres reads as text", async () => {
    const texts = ["", "a", "NULL", '"\\{,}', "é 😀", "x".repeat(70_000)];
    const documents = texts.map((text) => JSON.stringify({ text }));
    const bytes = [Buffer.alloc(0), Uint8Array.of(0, 255), Buffer.from("\\x00").subarray(1)];
    const { rows } = await sql`
      SELECT ${binaryArray("text", texts)}::text[] AS texts, ${binaryArray("jsonb", documents)}::jsonb[] AS documents,
             ${binaryArray("bytea", bytes)}::bytea[] = ${bytes}::bytea[] AS same,
             cardinality(${binaryArray("text", [])}::text[]) AS none`.execute(database.databases.app);
    expect(rows).toEqual([{ texts, documents: texts.map((text) => ({ text })), same: true, none: 0 }]);
  });

  test("sessions have their limits", async () => {
    const app = openDatabase({ url: database.url("licet_app"), applicationName: "limits", maxConnections: 1 });
    const { rows } = await sql`
      SELECT current_setting('lock_timeout') AS l, current_setting('statement_timeout') AS s,
             current_setting('idle_in_transaction_session_timeout') AS i`.execute(app);
    await app.destroy();
    expect(rows).toEqual([{ l: "2s", s: "5s", i: "10s" }]);
  });
});

test("a statement that is marked keeps its plan in the session, and row-level security all the same", async () => {
  const url = database.url("licet_app");
  const app = openDatabase<{ note: { tenant_id: string; body: string } }>({
    url,
    applicationName: "plans",
    maxConnections: 1,
  });
  const databases = { app, system: app };
  const notesLike = (tenant: string, body: string) =>
    inTenant(databases, tenant, (tx) =>
      tx.selectFrom("note").select("body").where("body", "like", body).modifyEnd(keepPlan).execute(),
    );
  try {
    for (const tenant of ["one", "two"]) {
      await inTenant(databases, tenant, (tx) => insert(tenant, `kept by ${tenant}`).execute(tx));
    }
    // Postgres keeps a plan from the sixth time on, where it is no worse.
    for (let time = 0; time < 10; time++) {
      for (const tenant of ["one", "two"]) {
        expect(await notesLike(tenant, "kept by %")).toEqual([{ body: `kept by ${tenant}` }]);
      }
    }
    expect(await notesLike("one", "nothing")).toEqual([]);
    const { rows } = await sql<{ generic_plans: bigint }>`
      SELECT generic_plans FROM pg_prepared_statements WHERE statement LIKE '%keep plan%'`.execute(app);
    expect(rows).toEqual([{ generic_plans: expect.any(BigInt) }]);
    expect(rows[0]?.generic_plans).toBeGreaterThan(0n);
  } finally {
    await app.destroy();
  }
});

describe("statements that nobody waits for", () => {
  const opened = () =>
    openDatabase<unknown>({ url: database.url("licet_app"), applicationName: "lazy", maxConnections: 1 });
  let app: ReturnType<typeof opened>;
  const inOne = <T>(work: (tx: Transaction<unknown>) => Promise<T>) => inTenant({ app, system: app }, "one", work);
  const insertLazily = (tenant: string, body: string) => sql`${insert(tenant, body)} ${dontWait}`;

  beforeEach(async () => {
    await asSuperuser("TRUNCATE note");
    app = opened();
  });
  afterEach(() => app.destroy());

  test("are carried out in their order, in their transaction", async () => {
    await inOne(async (tx) => {
      await insertLazily("one", "first").execute(tx);
      await sql`UPDATE note SET body = 'second' WHERE body = 'first'`.execute(tx);
      await insertLazily("one", "third").execute(tx);
    });
    expect((await inOne((tx) => bodies.execute(tx))).rows).toEqual([{ body: "second" }, { body: "third" }]);
  });

  test.each([
    ["the next statement", (tx: Transaction<unknown>) => bodies.execute(tx)],
    ["the commit", async () => undefined],
  ])("tell their failure to %s, and nothing is written", async (_, then) => {
    const attempt = inOne(async (tx) => {
      await insert("one", "before").execute(tx);
      await insertLazily("two", "smuggled").execute(tx);
      await then(tx);
    });
    await expect(attempt).rejects.toMatchObject({ code: "42501" });
    expect((await inOne((tx) => bodies.execute(tx))).rows).toEqual([]);
    expect((await bodies.execute(app)).rows).toEqual([]);
  });

  test("can fail in a savepoint that is then undone", async () => {
    await inOne(async (tx) => {
      await insert("one", "kept").execute(tx);
      await sql`SAVEPOINT part`.execute(tx);
      await insertLazily("two", "smuggled").execute(tx);
      await expect(sql`RELEASE SAVEPOINT part`.execute(tx)).rejects.toMatchObject({ code: "42501" });
      await sql`ROLLBACK TO SAVEPOINT part`.execute(tx);
    });
    expect((await inOne((tx) => bodies.execute(tx))).rows).toEqual([{ body: "kept" }]);
  });

  test("a transaction that could not begin does nothing outside of one", async () => {
    // A text that ends in its middle: the server refuses it and the session goes on, without a transaction.
    const attempt = inTenant({ app, system: app }, "one\0", (tx) => insert("one", "outside").execute(tx));
    await expect(attempt).rejects.toThrow();
    expect((await inOne((tx) => bodies.execute(tx))).rows).toEqual([]);
  });

  test("a tenant of any letters is that tenant", async () => {
    for (const tenant of ["o'ne", "o\\'ne", "'); DROP TABLE note; --", "$1$&"]) {
      const seen = await inTenant({ app, system: app }, tenant, async (tx) => {
        await insert(tenant, tenant).execute(tx);
        return bodies.execute(tx);
      });
      expect(seen.rows).toEqual([{ body: tenant }]);
    }
  });
});

describe("tenant isolation", () => {
  beforeEach(async () => {
    await asSuperuser("TRUNCATE note, idempotency");
    for (const tenant of ["one", "two"]) {
      await inTenant(database.databases, tenant, (tx) => insert(tenant, `of ${tenant}`).execute(tx));
    }
  });

  test("a transaction sees the rows of its tenant only", async () => {
    const seen = await inTenant(database.databases, "one", (tx) => bodies.execute(tx));
    expect(seen.rows).toEqual([{ body: "of one" }]);
  });

  test("raw SQL under the app role without a tenant sees nothing, also on a connection that has had one", async () => {
    const single = openDatabase<unknown>({ url: database.url("licet_app"), applicationName: "raw", maxConnections: 1 });
    try {
      expect((await bodies.execute(single)).rows).toEqual([]);
      await inTenant({ app: single, system: single }, "one", (tx) => bodies.execute(tx));
      expect((await bodies.execute(single)).rows).toEqual([]);
    } finally {
      await single.destroy();
    }
  });

  test.each([
    ["an insert", () => insert("two", "smuggled")],
    ["an update", () => sql`UPDATE note SET tenant_id = 'two'`],
  ])("%s into another tenant is refused", async (_, statement) => {
    const attempt = inTenant(database.databases, "one", (tx) => statement().execute(tx));
    await expect(attempt).rejects.toMatchObject({ code: "42501" });
  });

  test("an insert without a tenant is refused", async () => {
    await expect(insert("one", "x").execute(database.databases.app)).rejects.toMatchObject({ code: "42501" });
  });

  test("the system role sees only tables that name it", async () => {
    await expect(asSystem(database.databases, (tx) => bodies.execute(tx))).rejects.toMatchObject({ code: "42501" });
    const all = await asSystem(database.databases, (tx) => sql`SELECT tenant_id FROM idempotency`.execute(tx));
    expect(all.rows).toEqual([]);
  });

  test("no breach is found, and switching row-level security off is found", async () => {
    expect(await isolationBreaches(database)).toEqual([]);
    await asSuperuser("ALTER TABLE note DISABLE ROW LEVEL SECURITY");
    try {
      expect(await isolationBreaches(database)).toEqual([
        "note is readable without forced row-level security",
        "note shows 2 rows without a tenant",
      ]);
    } finally {
      await asSuperuser("ALTER TABLE note ENABLE ROW LEVEL SECURITY");
    }
  });

  test("a read-only transaction writes nothing", async () => {
    const attempt = inTenant(database.databases, "one", (tx) => insert("one", "x").execute(tx), { readOnly: true });
    await expect(attempt).rejects.toMatchObject({ code: "25006" });
  });

  test("setTenant changes the tenant for the rest of the transaction only", async () => {
    await inTenant(database.databases, "one", async (tx) => {
      await setTenant(tx, "two");
      expect((await bodies.execute(tx)).rows).toEqual([{ body: "of two" }]);
    });
    const seen = await inTenant(database.databases, "one", (tx) => bodies.execute(tx));
    expect(seen.rows).toEqual([{ body: "of one" }]);
  });

  test("an empty tenant is a mistake of the program", () => {
    expect(() => inTenant(database.databases, "", async () => 1)).toThrow("the tenant is empty");
  });
});

describe("retries", () => {
  function failing(code: string, times: number) {
    let calls = 0;
    return {
      calls: () => calls,
      work: async () => {
        if (calls++ < times) throw Object.assign(new Error("planted"), { code });
        return "done";
      },
    };
  }

  test.each(["40001", "40P01"])("%s is tried again, three times at most", async (code) => {
    const passing = failing(code, 3);
    expect(await inTenant(database.databases, "one", passing.work)).toBe("done");
    expect(passing.calls()).toBe(4);
    const lasting = failing(code, 100);
    await expect(inTenant(database.databases, "one", lasting.work)).rejects.toMatchObject({ code });
    expect(lasting.calls()).toBe(4);
  });

  test("other errors are not tried again", async () => {
    const refused = failing("23505", 1);
    await expect(inTenant(database.databases, "one", refused.work)).rejects.toMatchObject({ code: "23505" });
    expect(refused.calls()).toBe(1);
  });

  test("two transactions that deadlock both end well", async () => {
    await asSuperuser("TRUNCATE note");
    for (const body of ["a", "b"]) await inTenant(database.databases, "one", (tx) => insert("one", body).execute(tx));
    const update = (body: string) => sql`UPDATE note SET body = body WHERE body = ${body}`;
    // Each transaction's first try waits until both hold their first row.
    const barrier = Promise.withResolvers<void>();
    let holding = 0;
    const cross = (first: string, second: string) =>
      inTenant(database.databases, "one", async (tx) => {
        await update(first).execute(tx);
        if (++holding >= 2) barrier.resolve();
        await barrier.promise;
        await update(second).execute(tx);
      });
    await Promise.all([cross("a", "b"), cross("b", "a")]);
    expect(holding).toBe(3);
  });
});

describe("connections", () => {
  test("a server that cannot be reached is UNAVAILABLE", async () => {
    const nowhere = openDatabase<unknown>({
      url: "postgres://a:b@127.0.0.1:1/c",
      applicationName: "x",
      maxConnections: 1,
    });
    try {
      const attempt = inTenant({ app: nowhere, system: nowhere }, "one", async () => 1);
      await expect(attempt).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE" });
    } finally {
      await nowhere.destroy();
    }
  });

  test("a connection that is cut in the middle is UNAVAILABLE, and the pool recovers", async () => {
    const attempt = inTenant(database.databases, "one", async (tx) => {
      const { rows } = await sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`.execute(tx);
      await asSuperuser(`SELECT pg_terminate_backend(${rows[0]?.pid})`);
      await bodies.execute(tx);
    });
    await expect(attempt).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await inTenant(database.databases, "one", (tx) => bodies.execute(tx));
  });

  test("a queue that would only make answers late is refused, and nothing is begun for a caller who has left", async () => {
    const single = openDatabase<unknown>({
      url: database.url("licet_app"),
      applicationName: "full",
      maxConnections: 1,
    });
    const databases = { app: single, system: single };
    const held = Promise.withResolvers<void>();
    const holding = Promise.withResolvers<void>();
    const left = new AbortController();
    let begun = 0;
    const work = async () => ++begun;
    try {
      const holder = inTenant(databases, "one", async () => {
        holding.resolve();
        await held.promise;
      });
      await holding.promise;
      const waiting = Array.from({ length: 15 }, () => inTenant(databases, "one", work));
      const late = inTenant(databases, "one", work, { signal: left.signal });
      const refused = inTenant(databases, "one", work);
      await expect(refused).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "OVERLOADED", retryAfterMs: 250 });
      left.abort(new Error("left"));
      held.resolve();
      await holder;
      await Promise.all(waiting);
      await expect(late).rejects.toThrow("left");
      expect(begun).toBe(15);
    } finally {
      held.resolve();
      await single.destroy();
    }
  });
});

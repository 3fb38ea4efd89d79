/** The migration that gives positions to what was published before there were any. */
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { asSystem, inTenant } from "@licet/platform/database/database";
import { migrate } from "@licet/platform/database/migrate";
import { append } from "@licet/platform/events/outbox";
import { newId } from "@licet/platform/ids";
import { createTestDatabase, type TestDatabase } from "@licet/platform/testing/database";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import { migrations } from "../src/migrations.ts";
import type { DB } from "../src/store/schema.ts";

let before: string;
let database: TestDatabase<DB>;

beforeEach(async () => {
  before = await mkdtemp(path.join(tmpdir(), "licet-positions-"));
  for (const name of ["0001_licensing.sql", "0002_fail_mode.sql", "0003_replay.sql"]) {
    await cp(path.join(migrations, name), path.join(before, name));
  }
  database = await createTestDatabase<DB>({ name: "positions", migrations: before });
});
afterEach(async () => {
  await database.drop();
  await rm(before, { recursive: true });
});

const inTheName = (tenantId: string) => (stream: string, version: bigint) =>
  inTenant(database.databases, tenantId, (tx) =>
    append(tx, {
      eventId: newId(),
      tenantId,
      stream,
      version,
      type: "licet.license.suspended.v1",
      payload: Buffer.from("x"),
      actor: "test",
    }),
  );

/** Deletes the marks of events as a relay does that knows nothing of positions. */
const published = (where: { tenantId: string; streams: string[] }) =>
  asSystem(database.databases, (tx) =>
    tx
      .deleteFrom("outbox_pending")
      .where("event_id", "in", (eb) =>
        eb
          .selectFrom("event")
          .select("id")
          .where("tenant_id", "=", where.tenantId)
          .where("stream", "in", where.streams),
      )
      .execute(),
  );

const positions = () =>
  asSystem(database.databases, async (tx) => {
    const rows = await tx
      .selectFrom("event_position as p")
      .innerJoin("event as e", "e.id", "p.event_id")
      .select(["p.tenant_id", "p.position", "e.stream", "e.version"])
      .orderBy("p.tenant_id")
      .orderBy("p.position")
      .execute();
    return rows.map((row) => `${row.tenant_id} ${row.position}: ${row.stream} ${row.version}`);
  });

test("what was published has positions in its order, what is pending gets them when it is published", async () => {
  const [ofA, ofB] = [inTheName("a"), inTheName("b")];
  await ofA("customer/x", 1n);
  await ofA("customer/y", 1n);
  await ofB("customer/x", 1n);
  await ofA("customer/x", 2n);
  await ofA("customer/z", 1n);
  await published({ tenantId: "a", streams: ["customer/x", "customer/y"] });
  await published({ tenantId: "b", streams: ["customer/x"] });
  // A replay that has come as far as the first event.
  await asSystem(database.databases, (tx) => tx.insertInto("outbox_pending").values({ event_id: 1n }).execute());

  const ran = await migrate({ url: database.url("licet_owner"), folder: migrations });
  expect(ran[0]).toBe("0004_event_positions");
  const old = ["a 1: customer/x 1", "a 2: customer/y 1", "a 3: customer/x 2"];
  expect(await positions()).toEqual([...old, "b 1: customer/x 1"]);

  await ofA("customer/x", 3n);
  await published({ tenantId: "a", streams: ["customer/x", "customer/z"] });
  expect(await positions()).toEqual([...old, "a 4: customer/z 1", "a 5: customer/x 3", "b 1: customer/x 1"]);
  expect(await isolationBreaches(database)).toEqual([]);
});

test("a new installation begins with none", async () => {
  await migrate({ url: database.url("licet_owner"), folder: migrations });
  expect(await positions()).toEqual([]);
});

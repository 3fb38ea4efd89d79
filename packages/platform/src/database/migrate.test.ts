import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { sql } from "kysely";
import { createTestDatabase, type TestDatabase } from "../testing/database.ts";
import { migrate } from "./migrate.ts";
import { roles } from "./roles.ts";

let database: TestDatabase<unknown>;
let folder: string;

beforeEach(async () => {
  database = await createTestDatabase({ name: "migrate" });
  folder = await mkdtemp(join(tmpdir(), "licet-migrate-"));
  await writeFile(join(folder, "0001_first.sql"), "CREATE TABLE a (x int); GRANT SELECT ON a TO licet_system;");
  await writeFile(join(folder, "0002_second.sql"), "INSERT INTO a SELECT 1;");
});
afterEach(async () => {
  await database.drop();
  await rm(folder, { recursive: true });
});

const run = () => migrate({ url: database.url(roles.owner), folder });
const rows = async () => (await sql`SELECT x FROM a`.execute(database.databases.system)).rows;

test("runs what is new, in order, and nothing twice", async () => {
  expect(await run()).toEqual(["0001_first", "0002_second"]);
  expect(await run()).toEqual([]);
  await writeFile(join(folder, "0003_third.sql"), "INSERT INTO a SELECT 3;");
  expect(await run()).toEqual(["0003_third"]);
  expect(await rows()).toEqual([{ x: 1 }, { x: 3 }]);
});

test("concurrent migrators: one works, the others find nothing to do", async () => {
  const ran = await Promise.all(Array.from({ length: 6 }, run));
  expect(ran.flat().sort()).toEqual(["0001_first", "0002_second"]);
  expect(await rows()).toEqual([{ x: 1 }]);
});

test("a failing migration takes all new ones back and names its file", async () => {
  await writeFile(join(folder, "0003_third.sql"), "INSERT INTO nowhere SELECT 3;");
  await expect(run()).rejects.toThrow(/0003_third\.sql failed: relation "nowhere" does not exist/);
  await expect(rows()).rejects.toThrow(/relation "a" does not exist/);
});

test.each([
  ["0002_other.sql", "two migrations have the number 0002"],
  ["2_short.sql", "a migration is named NNNN_lower_case.sql"],
])("the file name %s is refused", async (file, message) => {
  await writeFile(join(folder, file), "SELECT 1");
  await expect(run()).rejects.toThrow(message);
});

test("a database of a newer program is refused", async () => {
  await run();
  await rm(join(folder, "0002_second.sql"));
  await expect(run()).rejects.toThrow(/was migrated by a newer or different program/);
});

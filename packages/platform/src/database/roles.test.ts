import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import pg from "pg";
import { createTestDatabase, type TestDatabase, testServerUrl } from "../testing/database.ts";
import { ensureDatabase, ensureRoles, rolePassword, roles, roleUrl } from "./roles.ts";

async function query(url: string, text: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await client.query(text);
  } finally {
    await client.end();
  }
}

describe("derived passwords", () => {
  const admin = "postgres://admin:s3cret%2F@db.example:5432/postgres?sslmode=verify-full";

  test("differ by role, depend on the administrator's password, are stable", () => {
    const all = Object.values(roles).map((role) => rolePassword(admin, role));
    expect(new Set(all).size).toBe(3);
    expect(rolePassword(admin, roles.app)).toBe(rolePassword(admin, roles.app));
    expect(rolePassword(admin.replace("s3cret", "other"), roles.app)).not.toBe(rolePassword(admin, roles.app));
    expect(all.join()).not.toContain("s3cret");
  });

  test("a role's URL keeps server and TLS settings", () => {
    const url = new URL(roleUrl(admin, roles.app, "licet_billing"));
    expect(url.username).toBe("licet_app");
    expect(url.pathname).toBe("/licet_billing");
    expect(url.host).toBe("db.example:5432");
    expect(url.search).toBe("?sslmode=verify-full");
  });

  test.each([
    ["postgres://admin@db.example/postgres", "needs a password"],
    ["mysql://a:b@c/d", "must look like postgres://"],
    ["nonsense", "must look like postgres://"],
  ])("%s is refused", (url, message) => {
    expect(() => rolePassword(url, roles.app)).toThrow(message);
  });
});

describe("on a server", () => {
  let database: TestDatabase<unknown>;
  beforeAll(async () => {
    database = await createTestDatabase({ name: "roles" });
  });
  afterAll(() => database.drop());

  test("setting up again, and from many at once, changes nothing and fails nowhere", async () => {
    const again = Array.from({ length: 8 }, async () => {
      await ensureRoles(database.adminUrl);
      await ensureDatabase(database.adminUrl, database.name);
    });
    await Promise.all(again);
    expect((await query(database.url(roles.app), "SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  });

  test("the roles can log in, bypass nothing, and only the owner creates tables", async () => {
    const facts = await query(
      database.adminUrl,
      "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname LIKE 'licet_%' ORDER BY 1",
    );
    const plain = { rolsuper: false, rolbypassrls: false, rolcreaterole: false };
    expect(facts.rows).toEqual(["licet_app", "licet_owner", "licet_system"].map((rolname) => ({ rolname, ...plain })));
    await query(database.url(roles.owner), "CREATE TABLE owned (a int)");
    for (const role of [roles.app, roles.system]) {
      await expect(query(database.url(role), "CREATE TABLE x (a int)")).rejects.toMatchObject({ code: "42501" });
      await expect(query(database.url(role), "SELECT FROM owned")).rejects.toMatchObject({ code: "42501" });
    }
  });

  test("a wrong password is refused with one sentence", async () => {
    const url = new URL(database.adminUrl);
    url.password = "wrong";
    await expect(ensureRoles(url.href)).rejects.toThrow(/refuses the login of user postgres: check DATABASE_URL/);
    await expect(ensureRoles(url.href)).rejects.not.toThrow(/wrong/);
  });

  test("an unreachable server is one sentence", async () => {
    await expect(ensureRoles("postgres://a:b@127.0.0.1:1/c")).rejects.toThrow(
      /^cannot reach Postgres at 127.0.0.1:1: check/,
    );
  });

  test("an administrator without superuser rights is enough", async () => {
    const name = `admin_${randomBytes(4).toString("hex")}`;
    await query(database.adminUrl, `CREATE ROLE ${name} LOGIN CREATEROLE CREATEDB PASSWORD 'pw'`);
    // As on a managed server where this administrator has made the roles itself.
    for (const role of Object.values(roles))
      await query(database.adminUrl, `GRANT ${role} TO ${name} WITH ADMIN OPTION`);
    const url = new URL(testServerUrl());
    url.username = name;
    url.password = "pw";
    const made = `test_${name}`;
    try {
      await ensureDatabase(url.href, made);
      await ensureDatabase(url.href, made);
      const owner = await query(
        database.adminUrl,
        `SELECT datdba::regrole::text AS owner FROM pg_database WHERE datname = '${made}'`,
      );
      expect(owner.rows).toEqual([{ owner: roles.owner }]);
    } finally {
      await query(database.adminUrl, `DROP DATABASE IF EXISTS ${made}`);
      await query(database.adminUrl, `DROP OWNED BY ${name}`);
      await query(database.adminUrl, `DROP ROLE ${name}`);
    }
  });
});

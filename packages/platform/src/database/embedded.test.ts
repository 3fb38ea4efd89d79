import { mkdir, mkdtemp, readFile, rm, stat, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import pg from "pg";
import { createLogger } from "../logging.ts";
import { startProgram } from "../testing/child.ts";
import { until } from "../testing/until.ts";
import { DataFolderInUseError, type EmbeddedPostgres, startEmbeddedPostgres } from "./embedded.ts";
import { findPostmaster } from "./postmaster.ts";

const logger = createLogger({ level: "silent", name: "embedded-test" });

let dataDir: string;
const running: EmbeddedPostgres[] = [];

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "licet-embedded-"));
});
afterEach(async () => {
  for (const server of running.splice(0)) await server.stop();
  await rm(dataDir, { recursive: true, force: true });
});

async function start(
  options: { dataDir?: string; ephemeral?: boolean; maxRestartsPerMinute?: number } = {},
): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({ dataDir, logger, settings: { fsync: "off" }, ...options });
  running.push(server);
  return server;
}

async function query(server: { readonly url: string }, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

const alive = (pid: number) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

describe("start and stop", () => {
  test("data survives a stop; nothing of the server is left after it", async () => {
    const first = await start();
    await query(first, "CREATE TABLE kept AS SELECT 1 AS a");
    await first.stop();
    expect(alive(first.pid)).toBe(false);
    expect(await query(await start(), "SELECT a FROM kept")).toEqual([{ a: 1 }]);
  });

  test("only this machine reaches it, only with the password, which only the owner can read", async () => {
    const server = await start();
    expect(await query(server, "SHOW listen_addresses")).toEqual([{ listen_addresses: "127.0.0.1" }]);
    expect(await query(server, "SHOW unix_socket_directories")).toEqual([{ unix_socket_directories: "" }]);
    const wrong = new URL(server.url);
    wrong.password = "guess";
    await expect(query({ url: wrong.href }, "SELECT 1")).rejects.toMatchObject({ code: "28P01" });
    expect((await stat(join(dataDir, "password"))).mode & 0o777).toBe(0o600);
  });

  test("is durable unless told otherwise", async () => {
    const server = await startEmbeddedPostgres({ dataDir, logger });
    running.push(server);
    const settings = await query(
      server,
      "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')",
    );
    expect(settings.map((row) => (row as { setting: string }).setting)).toEqual(["on", "on", "on"]);
  });

  test("an ephemeral server leaves no data", async () => {
    const server = await start({ ephemeral: true });
    await server.stop();
    await expect(stat(dataDir)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test.each([
    ["data that stay are written out when it ends", false, "fast"],
    ["data that nobody reads again are not", true, "immediate"],
  ])("%s", async (_name, ephemeral, mode) => {
    let said = "";
    const destination = {
      write(line: string) {
        said += line;
      },
    };
    const listening = createLogger({ level: "debug", name: "embedded-test", destination });
    const server = await startEmbeddedPostgres({ dataDir, logger: listening, ephemeral });
    running.push(server);
    await server.stop();
    await until("Postgres has said how it ends", () => said.includes("shutdown request"));
    expect(said).toContain(`received ${mode} shutdown request`);
  });

  test("a second start on data in use is refused", async () => {
    await start();
    await expect(start()).rejects.toThrow(DataFolderInUseError);
  });

  test("a lost password is said, not papered over", async () => {
    await (await start()).stop();
    await unlink(join(dataDir, "password"));
    await expect(start()).rejects.toThrow(/password is missing: restore it/);
  });

  test("an interrupted initdb is not mistaken for a database", async () => {
    await mkdir(join(dataDir, "cluster.new"));
    await writeFile(join(dataDir, "cluster.new", "PG_VERSION"), "18\n");
    expect(await query(await start(), "SELECT 1 AS a")).toEqual([{ a: 1 }]);
  });

  test("data that no Postgres can read is said with the server's own words", async () => {
    await (await start()).stop();
    await writeFile(join(dataDir, "cluster", "PG_VERSION"), "9.6\n");
    await expect(start()).rejects.toThrow(/does not start on .*not compatible with this version/);
  });
});

describe("after kill -9", () => {
  test("of the parent: the server left behind is ended, its data is there", async () => {
    const parent = await startProgram("hold-postgres.ts", dataDir);
    const orphan = JSON.parse(parent.line) as { pid: number; url: string };
    await query(orphan, "CREATE TABLE kept AS SELECT 1 AS a");
    await parent.kill();
    expect(alive(orphan.pid)).toBe(true);
    const server = await start();
    expect(server.pid).not.toBe(orphan.pid);
    expect(await findPostmaster(join(dataDir, "cluster"))).toBe(server.pid);
    expect(await query(server, "SELECT a FROM kept")).toEqual([{ a: 1 }]);
  });

  test("of parent and server, with a damaged pid file", async () => {
    const parent = await startProgram("hold-postgres.ts", dataDir);
    const orphan = JSON.parse(parent.line) as { pid: number; url: string };
    await query(orphan, "CREATE TABLE kept AS SELECT 1 AS a");
    await parent.kill();
    process.kill(orphan.pid, "SIGKILL");
    await writeFile(join(dataDir, "cluster", "postmaster.pid"), "\0garbage\n");
    expect(await query(await start(), "SELECT a FROM kept")).toEqual([{ a: 1 }]);
  });

  test("of the parent, with a damaged pid file while the server lives on", async () => {
    const parent = await startProgram("hold-postgres.ts", dataDir);
    await parent.kill();
    await writeFile(join(dataDir, "cluster", "postmaster.pid"), "");
    const server = await start();
    expect(await findPostmaster(join(dataDir, "cluster"))).toBe(server.pid);
  });

  test("a pid file naming a live process that is no Postgres is not believed, and that process is left alone", async () => {
    await (await start()).stop();
    await writeFile(join(dataDir, "cluster", "postmaster.pid"), `${process.ppid}\n${join(dataDir, "cluster")}\n`);
    expect(await query(await start(), "SELECT 1 AS a")).toEqual([{ a: 1 }]);
    expect(alive(process.ppid)).toBe(true);
  });

  test("of the server: it is back on the same URL with its data", async () => {
    const server = await start();
    await query(server, "CREATE TABLE kept AS SELECT 1 AS a");
    const killed = server.pid;
    process.kill(killed, "SIGKILL");
    await until("the server is back", () => server.pid !== killed);
    expect(await query(server, "SELECT a FROM kept")).toEqual([{ a: 1 }]);
  });

  test("of the server, and stopped while it recovers", async () => {
    const server = await start();
    const killed = server.pid;
    process.kill(killed, "SIGKILL");
    await until("its end was noticed", () => !alive(killed));
    await server.stop();
    expect(await findPostmaster(join(dataDir, "cluster"))).toBeUndefined();
    expect(await query(await start(), "SELECT 1 AS a")).toEqual([{ a: 1 }]);
  });

  test("of the server again and again: it gives up and says so", async () => {
    const server = await start({ maxRestartsPerMinute: 3 });
    let failure: Error | undefined;
    void server.failed.then((error) => {
      failure = error;
    });
    for (let pid = 0; failure === undefined; ) {
      await until("the server is back or given up", () => server.pid !== pid || failure !== undefined);
      pid = server.pid;
      if (alive(pid)) process.kill(pid, "SIGKILL");
    }
    expect(failure.message).toBe("Postgres ended by itself and could not be restarted");
  });
});

describe("below a folder that only its owner can enter", () => {
  test("the data lies where the server's account reaches it, and is found again", async () => {
    const asRoot = process.getuid?.() === 0;
    // mkdtemp makes 0700 folders.
    const below = join(dataDir, "below");
    const first = await start({ dataDir: below });
    await query(first, "CREATE TABLE kept AS SELECT 1 AS a");
    await first.stop();
    const location = await readFile(join(below, "location"), "utf8").catch(() => undefined);
    expect(location?.startsWith("/var/lib/licet/") ?? false).toBe(asRoot);
    const second = await start({ dataDir: below, ephemeral: true });
    expect(await query(second, "SELECT a FROM kept")).toEqual([{ a: 1 }]);
    await second.stop();
    await expect(stat((location ?? below).trim())).rejects.toMatchObject({ code: "ENOENT" });
  });
});

/** The operator's commands as processes, against databases of their own. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { topics } from "@licet/mesh/topics";
import { parseApiKey } from "@licet/platform/credentials";
import { asAdministrator, roles, roleUrl } from "@licet/platform/database/roles";
import { deadLetterTopic } from "@licet/platform/events/bus";
import { createPostgresBus } from "@licet/platform/events/postgres";
import { createLogger } from "@licet/platform/logging";
import { testServerUrl } from "@licet/platform/testing/database";

const prefix = `cli_${randomBytes(4).toString("hex")}`;
const usage = "licet.usage.v1";

async function licet(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const { KAFKA_BROKERS: _, ...withoutKafka } = process.env;
  const program = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));
  const child = spawn(process.execPath, ["-C", "licet-src", program, ...args], {
    env: { ...withoutKafka, DATABASE_URL: testServerUrl(), LICET_DATABASE_PREFIX: prefix },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
  return { code, stdout, stderr };
}

function sql<T>(database: string, statement: string): Promise<T[]> {
  const url = new URL(testServerUrl());
  url.pathname = `/${prefix}_${database}`;
  return asAdministrator(url.href, async (client) => (await client.query(statement)).rows);
}

beforeAll(async () => {
  expect(await licet("migrate")).toMatchObject({ code: 0, stderr: "" });
});

afterAll(async () => {
  await asAdministrator(testServerUrl(), async (client) => {
    for (const name of ["licensing", "metering", "bus"]) {
      await client.query(`DROP DATABASE IF EXISTS "${prefix}_${name}" WITH (FORCE)`);
    }
  });
});

test("migrate runs once and says so", async () => {
  const { stdout } = await licet("migrate");
  expect(stdout).toMatch(/^DATABASE +MIGRATIONS\n/);
  expect(stdout.match(/none to run/g)).toHaveLength(3);
});

test("topics: check refuses what is missing, apply creates it once, list shows it", async () => {
  expect(await licet("topics", "check")).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(`${2 * topics.length} topics are missing`),
  });
  const applied = await licet("topics", "apply");
  expect(applied.stdout.trim().split("\n")).toHaveLength(2 * topics.length);
  expect((await licet("topics", "apply")).stdout).toBe("All topics are there.\n");
  expect(await licet("topics", "check")).toMatchObject({ code: 0 });
  await sql("bus", `DELETE FROM partition WHERE topic = '${usage}' AND partition = 0`);
  expect((await licet("topics", "list")).stdout).toMatch(/licet\.usage\.v1 .* has \d+ partitions/);
  await sql("bus", `INSERT INTO partition (topic, partition) VALUES ('${usage}', 0)`);
});

test("operator-key issues a key; events replay makes its event pending again, by id and by time", async () => {
  const { stdout } = await licet("operator-key");
  expect(parseApiKey(stdout.trim())).toBeDefined();
  const [event] = await sql<{ id: string }>("licensing", "SELECT id FROM event");
  await sql("licensing", "DELETE FROM outbox_pending");
  const pending = () => sql("licensing", "SELECT event_id FROM outbox_pending");

  const replayed = await licet("events", "replay", "--from", String(event?.id));
  expect(replayed.stdout).toMatch(/^1 events from id \d+ on are pending/);
  expect(await pending()).toHaveLength(1);
  await sql("licensing", "DELETE FROM outbox_pending");
  expect((await licet("events", "replay", "--from", "2020-01-01T00:00:00Z")).stdout).toMatch(/^1 events/);
  expect(await pending()).toHaveLength(1);
  expect((await licet("events", "replay", "--from", "999999")).stdout).toMatch(/^No event/);
  expect(await licet("events", "replay", "--from", "yesterday")).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/neither an event's id nor a time/),
  });
});

test("events redrive publishes each dead letter again, once, as it was", async () => {
  const url = roleUrl(testServerUrl(), roles.system, `${prefix}_bus`);
  const bus = await createPostgresBus({ url, topics, logger: createLogger({ level: "silent", name: "cli" }) });
  const topic = topics.find(({ name }) => name === usage);
  if (topic === undefined) throw new Error(`there is no ${usage}`);
  const headers = { ce_id: "1", "dead-topic": usage, "dead-offset": "7", "dead-error": "broken" };
  await bus.publish([{ topic: deadLetterTopic(topic).name, key: "k", headers, value: Buffer.from("v") }]);
  await bus.stop();

  expect((await licet("events", "redrive", "--topic", usage)).stdout).toMatch(/^1 dead letters were published/);
  expect((await licet("events", "redrive", "--topic", usage)).stdout).toMatch(/has no new dead letters/);
  const back = await sql(
    "bus",
    `SELECT key, headers, convert_from(value, 'UTF8') AS value FROM record WHERE topic = '${usage}'`,
  );
  expect(back).toEqual([{ key: "k", headers: { ce_id: "1" }, value: "v" }]);
  expect(await licet("events", "redrive", "--topic", "nope")).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/there is no topic "nope"/),
  });
});

test("events accept-log lets usage be counted from another log, once", async () => {
  expect((await licet("events", "accept-log")).stdout).toMatch(/^Usage is counted from postgres:\S+ already\.\n$/);
  await sql("metering", "INSERT INTO consumer_offset VALUES ('usage-metering', 't', 0, 7)");
  await sql("bus", "UPDATE log_id SET id = gen_random_uuid()");
  expect((await licet("events", "accept-log")).stdout).toMatch(/from the start of\n {2}postgres:\S+\nin place of\n/);
  expect(await sql("metering", "SELECT next_offset FROM consumer_offset")).toEqual([{ next_offset: "0" }]);
  expect((await licet("events", "accept-log")).stdout).toMatch(/already/);
});

test("what is not understood is refused in one sentence", async () => {
  expect(await licet("frobnicate")).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/no command "frobnicate"/),
  });
  expect(await licet("events", "replay")).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/--from is missing/),
  });
});

/** `pnpm mesh` as a new user has it: with its own Kafka, Redis and Postgres. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import type { MeshInfo } from "@licet/cli/mesh/report";
import { findProcesses } from "@licet/platform/processes";
import { describeOwnKafka } from "@licet/platform/testing/kafka";
import { PATIENT_MS } from "@licet/platform/testing/patient";
import { describeRedis } from "@licet/platform/testing/redis";
import { until } from "@licet/platform/testing/until";

const program = fileURLToPath(new URL("../../packages/cli/src/mesh.ts", import.meta.url));
/** As package.json has them. */
const nodeArgs = ["-C", "licet-src", "--disable-warning=TimeoutNegativeWarning"];
const { DATABASE_URL: _d, KAFKA_BROKERS: _k, REDIS_URL: _r, ...bare } = process.env;

/** None that the demo data has. */
const metric = "mesh_command";

let dataDir: string;
const children: ChildProcess[] = [];
beforeEach(async () => {
  dataDir = await mkdtemp(path.join(tmpdir(), "licet-command-"));
  // Started by root, Postgres runs as another user and must pass through.
  await chmod(dataDir, 0o711);
});
afterEach(async () => {
  for (const child of children.splice(0))
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGINT");
  await until("everything has ended", async () => (await ours()).length === 0);
  await rm(dataDir, { recursive: true });
});

/** What runs on the test's data, and the mesh itself. */
function ours(): Promise<number[]> {
  return findProcesses((command) => command.includes(dataDir));
}

function launch(args: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const child = spawn(process.execPath, [...nodeArgs, program, "--data-dir", dataDir, ...args], {
    env: { ...bare, LICET_LOG_LEVEL: "error", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  return child;
}

/** Runs it to its end. */
async function run(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const child = launch(args, env);
  if (child.stdout === null || child.stderr === null) throw new Error("the mesh has no output");
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  return { stdout, stderr, code };
}

/** Starts it and waits until it serves. */
async function start(): Promise<{ info: MeshInfo; child: ChildProcess }> {
  const child = launch(["--free-ports", "--json"], {});
  child.stderr?.pipe(process.stderr);
  if (child.stdout === null) throw new Error("the mesh has no output");
  for await (const line of createInterface({ input: child.stdout })) return { info: JSON.parse(line), child };
  throw new Error("the mesh ended before it served");
}

async function call(info: MeshInfo, service: string, method: string, body: unknown): Promise<unknown> {
  const url = info.replicas.find((replica) => replica.service === service)?.webUrl;
  const key = info.apiKeys.tradsys?.service ?? "";
  const headers = { "content-type": "application/json", "x-api-key": key, "connect-timeout-ms": `${PATIENT_MS}` };
  return (await fetch(`${url}/${method}`, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

const mayTrade = (info: MeshInfo) =>
  call(info, "validation", "licet.validation.v1.ValidationService/ValidateFeature", {
    customer_id: "cairo-capital",
    feature: "egx_access",
  });

const countedEvents = async (info: MeshInfo) => {
  const method = "licet.metering.v1.UsageMeteringService/GetUsageStats";
  const stats = await call(info, "usage-metering", method, { customer_id: "cairo-capital", metric });
  return (stats as { totals?: { events: string }[] }).totals?.[0]?.events;
};

test("tells in one sentence what is in the way, before it starts anything", async () => {
  expect(await run(["--events", "nats"])).toMatchObject({ code: 1, stderr: expect.stringMatching(/--events: "nats"/) });
  expect(await run(["--events", "postgres"], { KAFKA_BROKERS: "localhost:1" })).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/--events: is postgres, although KAFKA_BROKERS is set/),
  });
  expect(await run([], { KAFKA_TLS: "on" })).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/KAFKA_TLS: is set without KAFKA_BROKERS/),
  });
  expect(await run([], { PATH: dataDir })).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^licet mesh: Kafka can't be started: there is no Java .*--events postgres\n$/),
  });
  for (const line of (await run(["--help"])).stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
});

describeOwnKafka("with Kafka", () => {
  describeRedis("and Redis", "own", () => {
    test("starts all it needs, goes on where it was after kill -9, and leaves nothing behind", async () => {
      const first = await start();
      expect(first.info.kafkaBrokers).toHaveLength(1);
      expect(first.info.redisUrl).toMatch(/^redis:/);
      expect(await mayTrade(first.info)).toMatchObject({ valid: true });
      const event = { id: "command-1", customer_id: "cairo-capital", metric, quantity: "1" };
      // Until the log can be reached, it is refused; by its id it counts once.
      await until("it is taken", async () => {
        const method = "licet.metering.v1.UsageMeteringService/TrackUsage";
        return "acceptedAt" in ((await call(first.info, "usage-metering", method, { event })) as object);
      });
      await until("it is counted", async () => (await countedEvents(first.info)) === "1");

      first.child.kill("SIGKILL");
      const second = await start();
      expect(second.info.apiKeys).toEqual(first.info.apiKeys);
      expect(await mayTrade(second.info)).toMatchObject({ valid: true });
      expect(await countedEvents(second.info)).toBe("1");
      const metering = second.info.replicas.find(({ service }) => service === "usage-metering");
      // A consumer group whose member was killed waits for it before it gives its partitions to the next one.
      await until("the lag of usage is told", async () => {
        const metrics = await (await fetch(metering?.metricsUrl ?? "")).text();
        return /licet_events_lag\{messaging_destination_name="licet.usage.v1"/.test(metrics);
      });

      const ended = once(second.child, "exit");
      second.child.kill("SIGINT");
      expect(await ended).toEqual([0, null]);
      expect(await ours()).toEqual([]);
    }, 600_000);
  });
});

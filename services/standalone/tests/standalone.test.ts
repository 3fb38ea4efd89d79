import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { findPostmaster } from "@licet/platform/database/postmaster";
import { until } from "@licet/platform/testing/until";
import { demoTenants } from "../src/demo.ts";
import { call, endAll, keyOf, outcome, type Ready, type Running, run, start } from "./process.ts";

const VALIDATE = "licet.validation.v1.ValidationService/ValidateFeature";
const PROVISION = "licet.licensing.v1.LicensingService/ProvisionLicense";
const GET_LICENSE = "licet.licensing.v1.LicensingService/GetLicense";
const USAGE_STATS = "licet.metering.v1.UsageMeteringService/GetUsageStats";

let folder: string;
beforeAll(async () => {
  folder = await openFolder("licet-standalone-test-");
});
afterAll(async () => {
  await endAll();
  await rm(folder, { recursive: true, force: true });
});

/** A new folder that root's Postgres, which runs as another user, can pass: its data then lies inside, not in /var/lib. */
async function openFolder(prefix: string): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), prefix));
  await chmod(path, 0o711);
  return path;
}

const egxOf = (ready: Ready, customerId: string) =>
  call(ready, keyOf(ready, "tradsys", "service"), VALIDATE, { customerId, feature: "egx_access" });

describe("one installation through its starts and ends", () => {
  let dataDir: string;
  let licet: Running;
  let licenseId: string;
  const cluster = () => join(dataDir, "postgres", "cluster");

  beforeAll(async () => {
    dataDir = await openFolder("licet-standalone-data-");
    licet = await start("--data-dir", dataDir);
  });
  afterAll(async () => {
    await endAll();
    await rm(dataDir, { recursive: true, force: true });
  });

  test("the first start serves the demo data and tells where, in a line and in a private file", async () => {
    const { dataDir: told, ...info } = licet.ready;
    expect(told).toBe(dataDir);
    expect(JSON.parse(await readFile(join(dataDir, "run.json"), "utf8"))).toEqual(info);
    for (const file of ["run.json", "secrets.json"]) expect((await stat(join(dataDir, file))).mode & 0o777).toBe(0o600);
    expect(await (await fetch(`${info.webUrl}/health`)).json()).toEqual({ status: "SERVING", degraded: false });
    expect(await (await fetch(info.metricsUrl)).text()).toContain("rpc_server_call_duration");
    for (const { tenantId } of demoTenants) {
      expect(Object.keys(info.apiKeys[tenantId] ?? {}).sort()).toEqual([
        "admin",
        "brand",
        "product",
        "service",
        "viewer",
      ]);
    }
    expect(await egxOf(licet.ready, "cairo-capital")).toMatchObject({ valid: true, decision: "DECISION_ALLOW" });
    expect(await egxOf(licet.ready, "trial-desk")).toMatchObject({ reason: "DECISION_REASON_FEATURE_NOT_IN_PLAN" });
    expect(await egxOf(licet.ready, "lapsed-fund")).toMatchObject({ reason: "DECISION_REASON_LICENSE_EXPIRED" });
    expect(await egxOf(licet.ready, "frozen-desk")).toMatchObject({ reason: "DECISION_REASON_LICENSE_SUSPENDED" });
  });

  test("a second start on the same folder is one sentence", async () => {
    const second = await outcome("main", [
      "--data-dir",
      dataDir,
      "--grpc-port",
      "0",
      "--web-port",
      "0",
      "--metrics-port",
      "0",
    ]);
    expect(second).toEqual({
      code: 1,
      stdout: "",
      stderr: `licet: another Licet (process ${licet.ready.pid}) runs on ${dataDir}: stop it, or choose another folder with --data-dir\n`,
    });
  });

  test.each([
    ["--grpc-port", "grpcUrl"],
    ["--web-port", "webUrl"],
    ["--metrics-port", "metricsUrl"],
  ] as const)("a busy port is named with its flag: %s", async (flag, url) => {
    const { port } = new URL(licet.ready[url]);
    const free = ["--grpc-port", "0", "--web-port", "0", "--metrics-port", "0"];
    const busy = await outcome("main", ["--ephemeral", ...free, flag, port]);
    expect(busy).toEqual({
      code: 1,
      stdout: "",
      stderr: `licet: port ${port} is in use: stop the program that has it, or choose another with ${flag}\n`,
    });
  });

  test("status says where it runs, for people, shells and programs", async () => {
    const { dataDir: _, ...info } = licet.ready;
    const status = (...args: string[]) => outcome("status", ["--data-dir", dataDir, ...args]);
    expect(JSON.parse((await status("-o", "json")).stdout)).toEqual(info);
    const table = (await status()).stdout;
    expect(table).toContain(`gRPC     ${info.grpcUrl}\n`);
    expect(table).toContain(keyOf(info, "nectar", "viewer"));
    const env = (await status("-o", "env")).stdout;
    expect(env).toContain(`export LICET_WEB_URL='${info.webUrl}'\n`);
    expect(env).toContain(`export LICET_API_KEY_TRADSYS_ADMIN='${keyOf(info, "tradsys", "admin")}'\n`);
    expect(env).toContain(`export LICET_API_KEY_PLATFORM_OPERATOR='${keyOf(info, "platform", "operator")}'\n`);
    expect(await status("-o", "xml")).toMatchObject({ code: 1, stderr: expect.stringContaining("table, env or json") });
  });

  test("a Postgres that dies comes back, and what was acknowledged is there", async () => {
    const provisioned = await call(licet.ready, keyOf(licet.ready, "tradsys", "brand"), PROVISION, {
      requestId: "test-1",
      customerId: "trial-desk",
      product: "trading",
      plan: "enterprise",
    });
    ({ licenseId } = provisioned.license as { licenseId: string });
    const killed = await findPostmaster(cluster());
    process.kill(killed ?? Number.NaN, "SIGKILL");
    await until("there is another one", async () => {
      const found = await findPostmaster(cluster());
      return found !== undefined && found !== killed;
    });
    const key = keyOf(licet.ready, "tradsys", "viewer");
    await until("the license can be read again", async () => {
      const { license } = await call(licet.ready, key, GET_LICENSE, { licenseId });
      return license !== undefined;
    });
  });

  test("Ctrl-C ends it in time, with its Postgres; the keys stay", async () => {
    // A browser's idle connection must not hold it up.
    const open = connect({ host: "127.0.0.1", port: Number(new URL(licet.ready.webUrl).port) });
    open.on("error", () => undefined);
    // What is not in time is cut off, and ends with 1.
    expect(await licet.end("SIGINT")).toBe(0);
    open.destroy();
    expect(await findPostmaster(cluster())).toBeUndefined();
    expect(await outcome("status", ["--data-dir", dataDir])).toEqual({
      code: 1,
      stdout: "",
      stderr: `licet status: no Licet runs on ${dataDir}; \`pnpm start\` starts one\n`,
    });
  });

  test("the next start has the same keys and data", async () => {
    const { apiKeys } = licet.ready;
    licet = await start("--data-dir", dataDir);
    expect(licet.ready.apiKeys).toEqual(apiKeys);
    const found = await call(licet.ready, keyOf(licet.ready, "tradsys", "viewer"), GET_LICENSE, { licenseId });
    expect(found.license).toMatchObject({ customerId: "trial-desk", plan: "enterprise" });
  });

  test("so has the start after kill -9, which ends the Postgres left behind", async () => {
    const { apiKeys } = licet.ready;
    await licet.end("SIGKILL");
    const orphan = await findPostmaster(cluster());
    expect(orphan).toBeDefined();
    licet = await start("--data-dir", dataDir);
    expect(await findPostmaster(cluster())).not.toBe(orphan);
    expect(licet.ready.apiKeys).toEqual(apiKeys);
    expect(await egxOf(licet.ready, "trial-desk")).toMatchObject({ valid: true });
  });

  test("revoked and lost keys are replaced, the others stay", async () => {
    const { apiKeys } = licet.ready;
    const admin = keyOf(licet.ready, "tradsys", "admin");
    const [keyId] = keyOf(licet.ready, "tradsys", "viewer").split(".");
    await call(licet.ready, admin, "licet.licensing.v1.TenantService/RevokeApiKey", { requestId: "revoke", keyId });
    await licet.end("SIGTERM");
    const { tradsys, platform: _lost, ...others } = apiKeys;
    const { service: _alsoLost, ...ofTradsys } = tradsys ?? {};
    const edited = { ...licet.ready, apiKeys: { ...others, tradsys: ofTradsys } };
    await writeFile(join(dataDir, "run.json"), JSON.stringify(edited));

    licet = await start("--data-dir", dataDir);
    expect(licet.ready.apiKeys).toMatchObject(others);
    expect(keyOf(licet.ready, "tradsys", "admin")).toBe(admin);
    expect(keyOf(licet.ready, "tradsys", "viewer")).not.toBe(tradsys?.viewer);
    expect(keyOf(licet.ready, "tradsys", "service")).not.toBe(tradsys?.service);
    expect(await egxOf(licet.ready, "cairo-capital")).toMatchObject({ valid: true });
    const tenants = await call(
      licet.ready,
      keyOf(licet.ready, "platform", "operator"),
      "licet.licensing.v1.TenantService/ListTenants",
      {},
    );
    expect((tenants.tenants as unknown[]).length).toBe(demoTenants.length);
  });

  test("a damaged run.json costs new keys, nothing else", async () => {
    await licet.end("SIGINT");
    await writeFile(join(dataDir, "run.json"), '{"grpcUrl":');
    licet = await start("--data-dir", dataDir);
    expect(await egxOf(licet.ready, "cairo-capital")).toMatchObject({ valid: true });
    await licet.end("SIGINT");
  });

  test("damaged secrets are not replaced silently", async () => {
    await writeFile(join(dataDir, "secrets.json"), "{}");
    await expect(start("--data-dir", dataDir)).rejects.toThrow(/secrets\.json is damaged: restore it/);
  });
});

describe("an ephemeral run", () => {
  test("leaves nothing", async () => {
    const dataDir = join(folder, "ephemeral");
    const licet = await start("--ephemeral", "--no-seed", "--data-dir", dataDir);
    expect(Object.keys(licet.ready.apiKeys)).toEqual(["platform"]);
    expect(await licet.end("SIGINT")).toBe(0);
    expect(await readdir(folder)).toEqual([]);
  });

  test("makes and removes a folder of its own when none is named", async () => {
    const licet = await start("--ephemeral", "--no-seed");
    const { dataDir } = licet.ready;
    await licet.end("SIGTERM");
    await expect(stat(dataDir)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("does not remove what it has not made", async () => {
    const dataDir = await mkdtemp(join(folder, "mine-"));
    await writeFile(join(dataDir, "thesis.txt"), "irreplaceable");
    await expect(start("--ephemeral", "--data-dir", dataDir)).rejects.toThrow(/is not empty: name a new one/);
    expect(await readdir(dataDir)).toEqual(["thesis.txt"]);
  });
});

/** Begins the load of a new folder again and again, and starts on what that has left. */
async function startOnCutLoads(dataDir: string): Promise<Running> {
  const args = ["--data-dir", dataDir, "--grpc-port", "0", "--web-port", "0", "--metrics-port", "0"];
  // Each is cut a little later in its life, from Postgres's first start on; the load goes on where the one before ended.
  for (const [round, signal] of (["SIGKILL", "SIGINT", "SIGKILL", "SIGKILL", "SIGINT"] as const).entries()) {
    const child = run("main", args);
    const startedAt = performance.now();
    await until("it is time", () => performance.now() - startedAt > 600 * (round + 1) || child.exitCode !== null);
    child.kill(signal);
    await until("it has ended", () => child.exitCode !== null || child.signalCode !== null);
  }
  return start("--data-dir", dataDir);
}

test("loads cut off by kill -9 at any point, and by Ctrl-C, are completed by the next start", async () => {
  const utcDay = () => new Date().getUTCDate();
  const begunOn = utcDay();
  let licet = await startOnCutLoads(join(folder, "cut"));
  // A load that goes on after midnight has the days before another today.
  if (utcDay() !== begunOn) {
    await licet.end("SIGINT");
    licet = await startOnCutLoads(join(folder, "cut-again"));
  }
  expect(await egxOf(licet.ready, "cairo-capital")).toMatchObject({ valid: true });
  expect(await egxOf(licet.ready, "frozen-desk")).toMatchObject({ reason: "DECISION_REASON_LICENSE_SUSPENDED" });
  const delta = await call(licet.ready, keyOf(licet.ready, "localmind", "viewer"), USAGE_STATS, {
    customerId: "delta-foods",
    metric: "data_volume_tb",
    startTime: new Date(Date.now() - 100 * 86_400_000),
  });
  expect(delta.totals).toEqual([{ metric: "data_volume_tb", quantity: "3.4", events: "85" }]);
  expect(await licet.end("SIGINT")).toBe(0);
});

describe("what is wrong is said in one sentence, before anything is started", () => {
  test("a wrong flag", async () => {
    const ended = await outcome("main", ["--fast"]);
    expect(ended).toMatchObject({ code: 1, stdout: "", stderr: expect.stringContaining("Unknown option '--fast'") });
  });

  const free = ["--grpc-port", "0", "--web-port", "0", "--metrics-port", "0"];

  test("an unreachable database", async () => {
    const ended = await outcome("main", ["--data-dir", join(folder, "unreachable"), ...free], {
      DATABASE_URL: "postgres://someone:hidden@127.0.0.1:1/x",
    });
    expect(ended.code).toBe(1);
    expect(ended.stderr).toMatch(/^licet: cannot reach Postgres at 127\.0\.0\.1:1: check DATABASE_URL .*\n$/);
    expect(ended.stderr).not.toContain("hidden");
  });

  test("a data folder that cannot be made", async () => {
    const file = join(folder, "file");
    await writeFile(file, "");
    const ended = await outcome("main", ["--data-dir", join(file, "below"), ...free]);
    expect(ended).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^licet: cannot use the data folder .*ENOTDIR/),
    });
  });

  test("help is no error", async () => {
    expect(await outcome("main", ["--help"])).toMatchObject({
      code: 0,
      stderr: "",
      stdout: expect.stringContaining("--no-seed"),
    });
  });
});

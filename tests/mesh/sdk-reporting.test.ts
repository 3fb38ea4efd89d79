/** What the SDK tells a whole Licet: usage that counts once, and seats that are taken, kept and given back. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { newId } from "@licet/platform/ids";
import { type FaultProxy, startFaultProxy } from "@licet/platform/testing/proxy";
import { until } from "@licet/platform/testing/until";
import { createLicet, createProductClient, type TrackOptions, type TrackProblem } from "@licet/sdk";
import { startLicet, type TestLicet } from "./licet.ts";

let licet: TestLicet;
let scratch: string;
let proxy: FaultProxy;
const children = new Set<ChildProcess>();

beforeAll(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), "licet-sdk-"));
  licet = await startLicet({ seed: true });
  const { hostname, port } = new URL(licet.run.grpcUrl);
  proxy = await startFaultProxy({ host: hostname, port: Number(port) });
});

afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  await proxy?.stop();
  await licet?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

const apiKey = (): string => licet.run.apiKeys.tradsys?.service ?? "";

/** What usage metering has counted of a metric of Nile Brokers. */
async function counted(metric: string): Promise<{ quantity: string; events: bigint } | undefined> {
  const metering = createClient(UsageMeteringService, licet.as("tradsys", "service"));
  // What a clock that is ahead has stamped may lie in the next hour.
  const endTime = timestampFromDate(new Date(Date.now() + 120_000));
  const { totals } = await metering.getUsageStats({ customerId: "nile-brokers", metric, endTime });
  return totals[0];
}

function connect(track: TrackOptions) {
  return createLicet({ mode: "remote", address: `127.0.0.1:${proxy.port}`, apiKey: apiKey(), track });
}

const event = { customerId: "nile-brokers", quantity: "0.5" };

test("usage counts once, also where answers are lost and an event is bad", async () => {
  const problems: TrackProblem[] = [];
  const client = connect({ flushIntervalMs: 5, onProblem: (problem) => void problems.push(problem) });
  // The rules of the server say more than the client knows.
  const tooOld = new Date("2001-01-01");
  for (let i = 0; i < 3_000; i++) {
    const taken = client.track({ ...event, metric: "sdk_orders", ...(i === 1_234 && { occurredAt: tooOld }) });
    expect(taken).toBe(true);
    // Events arrive, and nobody hears that they did.
    if (i % 1_000 === 500) {
      expect(await client.flush(30_000)).toBe(true);
      proxy.loseAnswers();
    } else if (i % 1_000 === 700) {
      await until("events have arrived", async () => ((await counted("sdk_orders"))?.events ?? 0n) > BigInt(i - 100));
      proxy.drop("reset");
    }
  }
  expect(await client.flush(30_000)).toBe(true);
  expect(client.trackCounts()).toMatchObject({ tracked: 3_000, delivered: 2_999, refused: 1, lost: 0, waiting: 0 });
  expect(client.trackCounts().retries).toBeGreaterThanOrEqual(3);
  expect(problems.filter(({ kind }) => kind === "REFUSED")).toMatchObject([
    { lost: 1, error: { reason: "INVALID_FIELD", message: expect.stringContaining("usage is kept for 3 years") } },
  ]);
  await client.close();
  expect(client.track({ ...event, metric: "sdk_orders" })).toBe(false);
  await until("all are counted", async () => ((await counted("sdk_orders"))?.events ?? 0n) >= 2_999n);
  expect(await counted("sdk_orders")).toMatchObject({ quantity: "1499.5", events: 2_999n });
});

test("what a clock that is ahead has stamped is counted once its time has come", async () => {
  const problems: TrackProblem[] = [];
  const client = connect({ flushIntervalMs: 5, onProblem: (problem) => void problems.push(problem) });
  // Ten seconds more than usage metering tolerates.
  for (let i = 0; i < 10; i++)
    client.track({ ...event, metric: "sdk_early", occurredAt: new Date(Date.now() + 70_000) });
  expect(await client.flush(60_000)).toBe(true);
  expect(client.trackCounts()).toMatchObject({ delivered: 10, refused: 0, waiting: 0 });
  expect(problems).toContainEqual(expect.objectContaining({ kind: "RETRYING", lost: 0 }));
  await client.close();
  await until("all are counted", async () => (await counted("sdk_early"))?.events === 10n);
});

/** A process that tracks so many events over a spool, and stays until it is killed. */
function startTracking(spool: string, first: number, events: number): ChildProcess {
  const program = path.join(import.meta.dirname, "sdk-tracking.ts");
  const settings = { address: `127.0.0.1:${proxy.port}`, apiKey: apiKey(), spool, first, events };
  const child = spawn(process.execPath, ["-C", "licet-src", program, JSON.stringify(settings)], { stdio: "inherit" });
  children.add(child);
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  const gone = once(child, "exit");
  child.kill("SIGKILL");
  await gone;
}

/** How many of the events that the processes track are on disk. */
function kept(spool: string): number {
  if (!existsSync(spool)) return 0;
  const files = readdirSync(spool).filter((name) => name.endsWith(".usage"));
  return files.reduce(
    (sum, name) => sum + readFileSync(path.join(spool, name), "latin1").split("spooled-").length - 1,
    0,
  );
}

test("what was on disk when the process was killed counts once, whoever sends it", async () => {
  const spool = path.join(scratch, "spool");
  proxy.cut();
  const first = startTracking(spool, 0, 5_000);
  await until("all are on disk", () => kept(spool) === 5_000, { timeoutMs: 60_000 }).catch((error: unknown) => {
    throw new Error(`it ended with ${first.exitCode}`, { cause: error });
  });
  await kill(first);

  proxy.restore();
  // So that it is killed in the middle: a thousand events, a request, take some time.
  proxy.throttle(50_000);
  const second = startTracking(spool, 5_000, 0);
  const some = async () => ((await counted("sdk_spooled"))?.events ?? 0n) > 0n;
  await until("some have arrived", some, { timeoutMs: 120_000 });
  await kill(second);
  expect(kept(spool)).toBeGreaterThan(0);

  proxy.drop("reset");
  proxy.restore();
  const third = connect({ spool: { folder: spool } });
  expect(await third.flush(30_000)).toBe(true);
  const { inherited } = third.trackCounts();
  expect(third.trackCounts()).toMatchObject({ delivered: inherited, waiting: 0 });
  await third.close();
  expect(readdirSync(spool)).toEqual([]);
  await until("all are counted", async () => ((await counted("sdk_spooled"))?.events ?? 0n) >= 5_000n);
  expect(await counted("sdk_spooled")).toMatchObject({ quantity: "5000", events: 5_000n });
}, 300_000);

test("an installed product takes a seat by its key, keeps it and gives it back", async () => {
  const licenses = createClient(LicensingService, licet.as("wprocket", "brand"));
  const { keySecret } = await licenses.provisionLicense({
    requestId: newId(),
    customerId: "ada",
    product: "rocket",
    plan: "sites-3",
    seats: 1,
    key: { case: "issueKey", value: true },
  });
  const { host } = new URL(licet.run.grpcUrl);
  const client = createProductClient({ address: host });
  const site = (id: string) => ({
    key: keySecret,
    product: "rocket",
    instance: { type: "URL", id } as const,
    displayName: "Shop",
    version: "3.17.2",
  });
  const shop = site("https://www.Shop.example/");
  expect(await client.checkKey(shop)).toMatchObject({ permitted: false, reason: "NOT_ACTIVATED", seats: { used: 0 } });

  const seat = client.keepSeat(shop);
  expect(await seat.ready()).toMatchObject({
    permitted: true,
    reason: "PERMITTED",
    seat: { instanceId: "shop.example", displayName: "Shop", version: "3.17.2", leaseExpiresAtMs: undefined },
    license: { product: "rocket", plan: "sites-3", status: "ACTIVE" },
    seats: { used: 1, maximum: 1 },
    // Without a lease once a day is enough.
    heartbeatMs: 86_400_000,
  });
  expect(await client.activate(site("https://blog.example"))).toMatchObject({
    permitted: false,
    reason: "SEATS_EXHAUSTED",
    seat: undefined,
    holders: [{ instanceId: "shop.example" }],
  });
  expect(await client.heartbeat(shop)).toMatchObject({ permitted: true, seat: { instanceId: "shop.example" } });
  expect(await seat.release()).toMatchObject({ deactivated: true, reason: "PERMITTED", seats: { used: 0 } });
  expect(await client.heartbeat(shop)).toMatchObject({ permitted: false, reason: "NOT_ACTIVATED" });
  expect(await client.checkKey({ ...shop, key: "WPR-0000-0000-0000-0000" })).toMatchObject({
    permitted: false,
    license: undefined,
  });
  await expect(client.activate(site("https://shop.example/?page=2"))).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    violations: [{ field: "instance.id" }],
  });
  client.close();
});

import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createClient } from "@connectrpc/connect";
import { afterAll, expect, test } from "@jest/globals";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { DecisionReason } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { findFreePorts } from "@licet/platform/free-ports";
import { createChannel } from "@licet/platform/rpc/client";
import { until } from "@licet/platform/testing/until";
import { randomFrom } from "../random.ts";
import { type Fault, type Supervisor, supervise } from "./supervisor.ts";
import { callersOver, countedEvents, insist, type Journal, prepare, provisionOne, trackTen } from "./workload.ts";

/** Decides every fault and its moment; another run with the same seed is alike, not identical: threads are not seeded. */
const seed = Number(process.env.LICET_SEED ?? 20_261_122);
const provisions = 1_000;
const batches = 1_000;
const kills = 32;
const callers = 8;

let supervisor: Supervisor | undefined;
const folder = mkdtempSync(path.join(tmpdir(), "licet-crash-"));
// Else root's Postgres, which runs as another user, would keep its data elsewhere.
chmodSync(folder, 0o755);
afterAll(async () => {
  await supervisor?.destroy();
  rmSync(folder, { recursive: true, force: true });
});

test(`${kills} kills over ${provisions} provisions and ${batches * 10} events: all acknowledged is there, once, with its effect`, async () => {
  const random = randomFrom(seed);
  const begun = new Date();
  const [grpc = 0, web = 0, metrics = 0] = await findFreePorts(3);
  const ports = { grpc, web, metrics };
  const licet = await supervise(path.join(folder, "data"), ports, random);
  supervisor = licet;
  const operator = createChannel({
    address: `127.0.0.1:${ports.grpc}`,
    credential: licet.runFile("apiKeys.platform.operator"),
  });
  const tenant = { requestId: "acme", tenantId: "acme", name: "Acme" };
  const over = new AbortController();
  const journal: Journal = { provisioned: new Map(), tracked: new Set(), repeated: 0, signal: over.signal };
  const tenants = createClient(TenantService, operator);
  const { adminApiKeySecret } = await insist(journal, () => tenants.createTenant(tenant));
  const channel = createChannel({ address: `127.0.0.1:${ports.grpc}`, credential: adminApiKeySecret });
  const client = callersOver(channel);
  await prepare(client, journal);

  const jobs = Array.from({ length: provisions + batches }, (_, index) =>
    index % 2 === 0 ? `customer-${index / 2}` : ((index - 1) / 2) * 10,
  );
  // A fault that waits for a call of some kind must find one, and one that ends the process must meet calls under way.
  const due = (kill: number) => (jobs.length * kill) / (kills + 1);
  const queue = jobs.entries();
  let done = 0;
  let held = due(1.5);
  const work = async (): Promise<void> => {
    for (const [index, job] of queue) {
      await until("the job is let go", () => index < held || over.signal.aborted, { timeoutMs: 240_000 });
      over.signal.throwIfAborted();
      if (typeof job === "string") await provisionOne(client, journal, job);
      else await trackTen(client, journal, random, job, begun);
      done += 1;
    }
  };
  const faulting = async (): Promise<void> => {
    const kinds: Fault[] = ["process", "postgres", "during start", "after append", "after commit"];
    for (let kill = 1; kill <= kills; kill++) {
      const name = `${due(kill)} of ${jobs.length} jobs are done`;
      await until(name, () => done >= due(kill) || over.signal.aborted);
      over.signal.throwIfAborted();
      await licet.cause(kinds[Math.floor(random() * kinds.length)] as Fault, () => {
        held = kill === kills ? jobs.length : due(kill + 1.5);
      });
    }
  };
  try {
    await Promise.all([faulting(), ...Array.from({ length: callers }, work)]);
  } catch (error) {
    over.abort();
    throw error;
  }

  await until(
    "every event is counted",
    async () => (await countedEvents(client, journal, begun)) >= BigInt(batches * 10),
  );
  expect(await countedEvents(client, journal, begun)).toBe(BigInt(journal.tracked.size));
  expect(journal.tracked.size).toBe(batches * 10);
  expect(journal.provisioned.size).toBe(provisions);
  for (const [customerId, licenseId] of journal.provisioned) {
    const holder = { case: "customerId", value: customerId } as const;
    const { licenses } = await insist(journal, () => client.licenses.listLicenses({ holder }));
    expect(licenses.map((license) => license.licenseId)).toEqual([licenseId]);
    const question = { customerId, feature: "f" };
    const ask = () => client.validation.validateFeature(question, { timeoutMs: 5_000 });
    const decision = await insist(journal, ask);
    expect([DecisionReason[decision.reason], decision.version]).toEqual(["ALLOWED", 2n]);
  }
  operator.close();
  channel.close();
  expect(await licet.stop()).toBe(0);
  const summary = {
    seed,
    kills,
    faults: licet.faults,
    provisions,
    events: batches * 10,
    repeated: journal.repeated,
  };
  process.stdout.write(`crash: ${JSON.stringify(summary)}\n`);
}, 1_800_000);

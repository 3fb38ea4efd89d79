import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { Lifecycle } from "@licet/platform/lifecycle";
import type { Logger } from "@licet/platform/logging";
import { openCaller } from "./caller.ts";
import { checkLicenses, type LicenseCounts } from "./check-licenses.ts";
import { checkUsage, type UsageCounts } from "./check-usage.ts";
import type { ClientSettings } from "./client.ts";
import { CONVERGES_WITHIN_MS, converge } from "./convergence.ts";
import { type Havoc, targetsOf, wreak } from "./faults.ts";
import { createFindings, type Difference, type Findings } from "./findings.ts";
import { tenants } from "./model.ts";
import { type FaultKind, planFaults } from "./plan.ts";
import type { PlantedBug } from "./planted.ts";
import { probeIsolation, probeSlots } from "./probes.ts";
import { countDead, readPublished } from "./published.ts";
import { type Scene, setUp } from "./setting-up.ts";
import { openStage, type Stage } from "./stage.ts";

/** What a run is told. */
export interface RunOptions {
  readonly seed: number;
  /** How long faults are let loose. */
  readonly minutes: number;
  readonly only: readonly FaultKind[] | undefined;
  readonly planted: { readonly name: string; readonly bug: PlantedBug } | undefined;
  readonly replicas: number;
  /** Usage events a second. */
  readonly rate: number;
  readonly folder: string;
  readonly lifecycle: Lifecycle;
  readonly logger: Logger;
  readonly signal: AbortSignal;
  /** Tells a person what happens. */
  say(line: string): void;
}

/** What a run came to; printed as its last line. */
export interface Summary {
  readonly seed: number;
  readonly minutes: number;
  readonly kills: number;
  /** With 95 % confidence at most this share of kills does harm, where there is no difference: 3/N. */
  readonly harmfulBelow: number;
  /** How many faults of each kind. */
  readonly faults: Readonly<Record<string, number>>;
  readonly events: UsageCounts;
  readonly provisions: number;
  readonly changes: number;
  readonly validations: LicenseCounts["validations"];
  readonly revocations: LicenseCounts["revocations"];
  readonly convergenceMs: number;
  readonly differences: readonly Difference[];
}

/** Processes that change licenses share this many workers. */
const LICENSE_WORKERS = 4;
const USAGE_LANES = 6;
/** What a replica promises that is told to end, in milliseconds. */
const ENDS_WITHIN_MS = 15_000;
/** Clients finish what they began within 60 s, and look for revocations a little longer. */
const CLIENTS_END_WITHIN_MS = 120_000;

/** Starts everything, breaks it, waits until it is whole again, and compares what was promised with what is there. */
export async function run(options: RunOptions): Promise<Summary> {
  const { lifecycle, say, signal, minutes, seed } = options;
  say("starting Kafka, Postgres, Redis and the replicas");
  const stage = await openStage({ ...options, whenBusDown: seed % 2 === 0 ? "spool" : "refuse" });
  signal.throwIfAborted();
  const scene = await setUp(stage, LICENSE_WORKERS);
  const journals = {
    licenses: path.join(options.folder, "licenses.jsonl"),
    usage: path.join(options.folder, "usage.jsonl"),
  };
  const clients = [
    await startClient("licenses", journals.licenses, scene, options),
    await startClient("usage", journals.usage, scene, options),
  ];
  lifecycle.defer("clients", async () => clients.forEach(({ child }) => void child.kill("SIGKILL")));
  const findings = createFindings();
  for (const { work, ended } of clients) {
    void ended.then((code) => code !== 0 && findings.add("clients", `the ${work} client ended with ${code}`));
  }

  const runMs = minutes * 60_000;
  const faults = planFaults(seed, runMs, targetsOf(stage, options.planted?.bug.targets), options.only);
  say(`letting ${faults.length} faults loose for ${minutes} min`);
  const onFault = ({ kind, target, how, forMs }: (typeof faults)[number]): void =>
    say(`${kind} ${target} ${how}${forMs === 0 ? "" : `, ${(forMs / 1_000).toFixed(1)} s`}`);
  const havoc = await wreak({ stage, faults, runMs, signal, onFault });
  signal.throwIfAborted();
  for (const failure of havoc.failures) findings.add("faults", failure);
  const lastOver = Math.max(Date.now() - CONVERGES_WITHIN_MS, ...havoc.spells.map(({ over }) => over));
  say("the last fault is over; waiting until everything is whole");
  const finished = finish(clients, findings);
  const convergence = await converge(stage, lastOver, signal);
  judge(convergence, findings);
  await finished;
  // What the clients did last has to be counted as well.
  if (convergence.missing.length === 0) await converge(stage, Date.now(), signal);
  say(`whole after ${(convergence.ms / 1_000).toFixed(1)} s; checking`);
  return { ...(await check({ ...options, stage, scene, journals, havoc, findings })), convergenceMs: convergence.ms };
}

function judge({ ms, missing }: { ms: number; missing: readonly string[] }, findings: Findings): void {
  for (const what of missing) findings.add("convergence", what);
  if (missing.length === 0 && ms > CONVERGES_WITHIN_MS) findings.add("convergence", `it took ${ms} ms`);
}

async function check(
  options: RunOptions & {
    stage: Stage;
    scene: Scene;
    journals: { licenses: string; usage: string };
    havoc: Havoc;
    findings: Findings;
  },
): Promise<Omit<Summary, "convergenceMs">> {
  const { stage, scene, journals, havoc, findings, seed, minutes } = options;
  const callers = new Map(tenants.map((tenant) => [tenant, openCaller(scene.place, tenant)]));
  const { databases } = stage;
  const signal = AbortSignal.timeout(120_000);
  const events = await checkUsage({
    journal: journals.usage,
    url: databases.url("metering", "licet_system"),
    callers,
    licensedFrom: scene.licensedFrom,
    findings,
    signal,
  });
  const licenses = await checkLicenses({
    journal: journals.licenses,
    url: databases.url("licensing", "licet_system"),
    published: readPublished(stage),
    spells: havoc.spells,
    findings,
  });
  options.say("checked what was promised; probing");
  for (const dead of await countDead(stage)) findings.add("dead letters", dead);
  for (const { name, crashes, ends } of stage.replicas) {
    if (crashes > 0) findings.add("crash", `${name} ended ${crashes} times by itself`);
    for (const { code, ms } of ends) {
      if (code !== 0 || ms > ENDS_WITHIN_MS) findings.add("drain", `${name} ended with ${code} ${ms} ms after SIGTERM`);
    }
  }
  await probeIsolation(stage, findings);
  await probeSlots(stage, scene, findings);
  for (const caller of callers.values()) caller.close();
  options.say("ending");
  const { provisions, changes, validations, revocations } = licenses;
  return {
    seed,
    minutes,
    kills: havoc.kills(),
    harmfulBelow: Number((3 / Math.max(3, havoc.kills())).toFixed(4)),
    faults: Object.fromEntries(
      [...Map.groupBy(havoc.spells, ({ fault }) => fault.kind)].map(([kind, spells]) => [kind, spells.length]),
    ),
    events,
    provisions,
    changes,
    validations,
    revocations,
    differences: findings.list(),
  };
}

interface Client {
  readonly work: string;
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
}

async function startClient(
  work: ClientSettings["work"],
  journal: string,
  { place, licenses }: Scene,
  { seed, rate, folder }: RunOptions,
): Promise<Client> {
  const load = { seed, rate, lanes: USAGE_LANES, licenses };
  const settings: ClientSettings = { work, journal, place, seed, workers: LICENSE_WORKERS, load };
  const file = path.join(folder, `${work}.json`);
  await writeFile(file, JSON.stringify(settings), { mode: 0o600 });
  const log = openSync(path.join(folder, `client-${work}.log`), "a");
  const child = spawn(
    process.execPath,
    ["-C", "licet-src", fileURLToPath(new URL("./client.ts", import.meta.url)), file],
    {
      stdio: ["ignore", log, log, "ipc"],
    },
  );
  return { work, child, ended: once(child, "exit").then(([code]) => code as number | null) };
}

/** Tells the clients to finish and waits until they have. */
async function finish(clients: readonly Client[], findings: Findings): Promise<void> {
  await Promise.all(
    clients.map(async ({ work, child, ended }) => {
      if (child.connected) child.send("finish");
      const late = setTimeout(() => {
        findings.add("clients", `the ${work} client did not come to its end`);
        child.kill("SIGKILL");
      }, CLIENTS_END_WITHIN_MS);
      await ended;
      clearTimeout(late);
    }),
  );
}

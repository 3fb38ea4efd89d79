import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { randomFrom } from "../random.ts";
import type { Attack } from "./attack.ts";
import type { CanaryReport } from "./canary.ts";
import { grpcAttacks } from "./grpc-attacks.ts";
import { http2Attacks } from "./http2-attacks.ts";
import { createSamples } from "./samples.ts";
import { sizeAttacks } from "./size-attacks.ts";
import { createTally } from "./tally.ts";
import { startVictim, type Victim } from "./victim.ts";
import { webAttacks } from "./web-attacks.ts";

/** What attacks may cost: resident memory for good, in MB, and what one may add to the canary's 99th percentile, in milliseconds. */
interface Allowance {
  readonly growthMb: number;
  readonly p99Ms: number;
}
const strict: Allowance = { growthMb: 50, p99Ms: 100 };
/** For a short run on a machine that others use, too: it finds what grows without end and what hangs. */
const lenient: Allowance = { growthMb: 200, p99Ms: 30_000 };
const SAMPLE_MS = 100;

/** All attacks, in the order in which they run. */
export const attacks: readonly Attack[] = [...http2Attacks, ...grpcAttacks, ...sizeAttacks, ...webAttacks];

/** What {@link runFuzz} is told. */
export interface FuzzOptions {
  readonly seed: number;
  /** How long all attacks take together, about. */
  readonly seconds: number;
  /** Names of attacks; all without it. */
  readonly only?: readonly string[] | undefined;
  /** Allows more memory and time. */
  readonly lenient: boolean;
  /** Bugs to plant. */
  readonly bugs?: readonly string[] | undefined;
  readonly log: (line: string) => void;
}

/** What one attack came to. */
interface Outcome {
  readonly name: string;
  readonly rounds: number;
  readonly acts: number;
  readonly answers: Readonly<Record<string, number>>;
  readonly rssPeak: number;
  readonly canary: CanaryReport;
}

/** What a run came to; `findings` is empty when all promises held. */
export interface FuzzReport {
  readonly seed: number;
  readonly attacks: readonly Outcome[];
  /** Resident memory in MB: after the start, when it was warm, at most, and at the end. */
  readonly rssCold: number;
  readonly rssBefore: number;
  readonly rssPeak: number;
  readonly rssAfter: number;
  /** The most handlers seen at once and how many there may be, by kind of call. */
  readonly handlers: Readonly<Record<string, { readonly peak: number; readonly max: number }>>;
  readonly quiet: CanaryReport;
  readonly canary: Pick<CanaryReport, "calls" | "failures" | "p50" | "p99" | "max">;
  readonly findings: readonly string[];
  readonly verdict: "held" | "broken";
}

/** Attacks a victim of its own with every attack in turn and judges what came of it. */
export async function runFuzz(options: FuzzOptions): Promise<FuzzReport> {
  const victim = await startVictim(options.bugs);
  let canary: ChildProcess | undefined;
  try {
    canary = startCanary(victim);
    return await attackAll(victim, canary, options);
  } catch (error) {
    for (const line of victim.errors) options.log(`victim: ${line.slice(0, 1_000)}`);
    throw error;
  } finally {
    canary?.kill("SIGKILL");
    await victim.stop();
  }
}

function startCanary({ grpcPort, key }: Victim): ChildProcess {
  const program = fileURLToPath(new URL("./canary.ts", import.meta.url));
  return spawn(process.execPath, ["-C", "licet-src", program, `127.0.0.1:${grpcPort}`, key("tradsys", "service")], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
}

/** What the canary saw since it was asked last. */
async function seen(canary: ChildProcess): Promise<CanaryReport> {
  const answer = once(canary, "message");
  canary.send("report");
  const [report] = (await answer) as [CanaryReport];
  return report;
}

/** Rounds from this one on only warm up. */
const FIRST_WARM = 1_000_000;

/** What a round does is the seed's, however many the machine has had time for before. */
function randomOf(seed: number, attack: Attack, round: number): () => number {
  return randomFrom(seed + 10_000_019 * attacks.indexOf(attack) + round);
}

async function attackAll(victim: Victim, canary: ChildProcess, options: FuzzOptions): Promise<FuzzReport> {
  const { seed, seconds, log } = options;
  const allowed = options.lenient ? lenient : strict;
  let ids = 0;
  const prefix = `fuzz-${seed}`;
  const methods = createSamples(() => `${prefix}-${++ids}`);
  const aim = {
    grpcPort: victim.grpcPort,
    webPort: victim.webPort,
    key: victim.key("tradsys", "admin"),
    operatorKey: victim.key("platform", "operator"),
    methods,
    stall: (work: () => Promise<void>) => victim.locked("license", work),
  };
  const chosen = attacks.filter(({ name }) => options.only?.includes(name) ?? true);
  // Half of the time goes into getting warm.
  const share = Math.ceil((seconds * 500) / chosen.length);
  const accepted = new Set<string>();
  const findings: string[] = [];
  const watch = watchVictim(victim);

  // Every attack, unjudged: what is loaded, compiled and kept for reuse after the first time is no leak.
  const rssCold = victim.rss();
  for (const attack of chosen) {
    const signal = AbortSignal.timeout(share);
    for (let round = FIRST_WARM; round === FIRST_WARM || !signal.aborted; round++) {
      await attack.round({ ...aim, accepted, signal, random: randomOf(seed, attack, round) }, createTally(attack));
    }
  }
  const rssBefore = await victim.settle(0, 15_000);
  const before = await countRows(victim);
  accepted.clear();
  await seen(canary);
  await delay(Math.min(5_000, seconds * 100));
  const quiet = await seen(canary);
  log(`quiet: ${JSON.stringify(quiet)}, ${Math.round(rssBefore)} MB`);

  const outcomes: Outcome[] = [];
  for (const attack of chosen) {
    const tally = createTally(attack);
    const signal = AbortSignal.timeout(share);
    watch.reset();
    let rounds = 0;
    for (; rounds === 0 || !signal.aborted; rounds++) {
      await attack.round({ ...aim, accepted, signal, random: randomOf(seed, attack, rounds) }, tally);
    }
    const outcome = {
      name: attack.name,
      rounds,
      acts: tally.acts,
      answers: tally.answers,
      rssPeak: Math.round(watch.rssPeak),
      canary: await seen(canary),
    };
    outcomes.push(outcome);
    log(JSON.stringify(outcome));
    findings.push(...tally.findings);
    findings.push(...judgeCanary(attack.name, outcome.canary, allowed.p99Ms + quiet.p99));
    if (!victim.alive) {
      findings.push(`${attack.name}: the victim ended: ${victim.errors.join("\n").slice(0, 2_000)}`);
      break;
    }
  }
  watch.stop();
  const rssAfter = victim.alive ? await victim.settle(rssBefore + allowed.growthMb, 30_000) : 0;
  if (rssAfter > rssBefore + allowed.growthMb) {
    findings.push(`memory: ${rssBefore.toFixed()} MB before, ${rssAfter.toFixed()} MB after all garbage is collected`);
  }
  for (const [kind, { peak, max }] of Object.entries(watch.handlers)) {
    if (peak > max) findings.push(`handlers: ${peak} of ${kind} calls ran at once, at most ${max} may`);
  }
  if (Object.keys(watch.handlers).length === 0) findings.push("handlers: the metrics tell nothing of them");
  if (victim.alive) {
    const health = await victim.health();
    if (health !== 200) findings.push(`health: ${health}`);
    findings.push(...judgeRows(before, await countRows(victim), accepted));
  }
  for (const line of victim.errors.filter(isFault).slice(0, 3)) findings.push(`log: ${line.slice(0, 500)}`);
  const calls = outcomes.reduce((sum, { canary: { calls } }) => sum + calls, 0);
  if (calls === 0) findings.push("the canary got no answer at all");
  const p = (name: "p50" | "p99" | "max") => Math.max(...outcomes.map(({ canary: { [name]: value } }) => value));
  return {
    seed,
    attacks: outcomes,
    rssCold: Math.round(rssCold),
    rssBefore: Math.round(rssBefore),
    rssPeak: Math.max(...outcomes.map(({ rssPeak }) => rssPeak)),
    rssAfter: Math.round(rssAfter),
    handlers: watch.handlers,
    quiet,
    canary: {
      calls,
      failures: outcomes.reduce((sum, { canary: { failures } }) => sum + failures, 0),
      p50: p("p50"),
      p99: p("p99"),
      max: p("max"),
    },
    findings,
    verdict: findings.length === 0 ? "held" : "broken",
  };
}

function judgeCanary(name: string, { calls, failures, failure, p99 }: CanaryReport, maxP99: number): string[] {
  const findings: string[] = [];
  if (failures > 0) findings.push(`${name}: ${failures} of ${calls} calls of the canary failed: ${failure}`);
  if (p99 > maxP99) findings.push(`${name}: the canary's p99 was ${p99} ms, more than ${maxP99} ms`);
  return findings;
}

/** Whether a line of the log tells of a fault of ours; what an outage or a stuck database leads to is none. */
function isFault(line: string): boolean {
  try {
    return (JSON.parse(line) as { readonly code?: string }).code !== "UNAVAILABLE";
  } catch {
    return true;
  }
}

/** Looks at memory and handlers all the time. */
function watchVictim(victim: Victim) {
  const handlers: Record<string, { peak: number; max: number }> = {};
  const state = { rssPeak: 0, busy: false };
  const timer = setInterval(() => {
    if (!victim.alive) return;
    state.rssPeak = Math.max(state.rssPeak, victim.rss());
    if (state.busy) return;
    state.busy = true;
    victim
      .handlers()
      .then((now) => {
        for (const [kind, { running, max }] of Object.entries(now)) {
          handlers[kind] = { peak: Math.max(running, handlers[kind]?.peak ?? 0), max };
        }
      })
      .catch(() => {})
      .finally(() => {
        state.busy = false;
      });
  }, SAMPLE_MS);
  return {
    handlers,
    get rssPeak() {
      return state.rssPeak;
    },
    reset() {
      state.rssPeak = 0;
    },
    stop: () => clearInterval(timer),
  };
}

/** What each mutation of licensing makes one of. */
const made: Readonly<Record<string, readonly string[]>> = {
  tenant: ["CreateTenant"],
  api_key: ["CreateApiKey", "CreateTenant"],
  product: ["CreateProduct"],
  feature: ["CreateFeature"],
  plan: ["CreatePlan"],
  plan_version: ["CreatePlan", "PublishPlanVersion"],
  customer: ["CreateCustomer"],
  license: ["ProvisionLicense"],
};

interface Rows {
  readonly counts: Readonly<Record<string, number>>;
  /** `method request_id` of every mutation that took effect. */
  readonly effects: ReadonlySet<string>;
}

async function countRows(victim: Victim): Promise<Rows> {
  const counts: Record<string, number> = {};
  for (const table of Object.keys(made)) {
    const [row] = await victim.sql<{ count: string }>(`SELECT count(*) FROM ${table}`);
    counts[table] = Number(row?.count);
  }
  const rows = await victim.sql<{ method: string; key: string }>("SELECT method, key FROM idempotency");
  return { counts, effects: new Set(rows.map(({ method, key }) => `${method} ${key}`)) };
}

/** Refused calls must have had no effect, and calls with an effect the whole of it. */
function judgeRows(before: Rows, after: Rows, accepted: ReadonlySet<string>): string[] {
  const fresh = [...after.effects].filter((effect) => !before.effects.has(effect));
  const findings = fresh
    .filter((effect) => !accepted.has(effect))
    .map((effect) => `rows: ${effect} was not accepted and had an effect`);
  for (const [table, methods] of Object.entries(made)) {
    const added = (after.counts[table] ?? 0) - (before.counts[table] ?? 0);
    const due = fresh.filter((effect) => methods.some((method) => effect.includes(`/${method} `))).length;
    if (added !== due) findings.push(`rows: ${table} has ${added} more, ${due} mutations were carried out`);
  }
  return findings.slice(0, 5);
}

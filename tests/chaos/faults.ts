import { setTimeout as delay } from "node:timers/promises";
import type { FaultProxy } from "@licet/platform/testing/proxy";
import { until } from "@licet/platform/testing/until";
import { Kafka, logLevel } from "kafkajs";
import pg from "pg";
import type { Cluster } from "./cluster.ts";
import type { Fault, Targets } from "./plan.ts";
import type { ChaosReplica } from "./replica.ts";
import type { Stage } from "./stage.ts";

/** So many faults work at the same time. */
const AT_ONCE = 2;
/** What a fault broke must be back so long after it is over, in milliseconds; the next fault of it waits for that. */
const BACK_WITHIN_MS = 60_000;
/** Bytes a second that a slow link passes. */
const SLOW_BYTES = 8_192;
/** How late a link with a delay passes everything, in milliseconds. */
const LATE_MS = 300;

/** When a fault worked, in epoch milliseconds. */
export interface Spell {
  readonly fault: Fault;
  readonly from: number;
  /** When nothing was done any more. */
  over: number;
  /** When what it broke was back. */
  back: number;
}

/** What a run has done. */
export interface Havoc {
  readonly spells: readonly Spell[];
  /** Processes ended by SIGKILL. */
  kills(): number;
  /** Faults that could not be caused, or whose victim was not back in time. */
  readonly failures: readonly string[];
}

/** What can be broken on a stage: of its replicas and links those whose names hold `text`. */
export function targetsOf({ replicas, cluster, links }: Stage, text = ""): Targets {
  return {
    replicas: replicas.map(({ name }) => name).filter((name) => name.includes(text)),
    brokers: (cluster?.brokers ?? []).map(({ number }) => `broker-${number}`),
    links: [...links.keys()].filter((name) => name.includes(text)),
  };
}

/** Lets the planned faults loose, two at most at the same time, until the time is up; resolves when the last one is over. */
export async function wreak(options: {
  stage: Stage;
  faults: readonly Fault[];
  runMs: number;
  signal: AbortSignal;
  onFault(fault: Fault): void;
}): Promise<Havoc> {
  const { stage, faults, runMs, signal, onFault } = options;
  const startedAt = performance.now();
  const working = new Map<string, Promise<void>>();
  const spells: Spell[] = [];
  const failures: string[] = [];
  const elapsed = (): number => performance.now() - startedAt;
  for (const fault of faults) {
    await delay(Math.max(0, fault.atMs - elapsed()), undefined, { signal });
    const busy = busyKey(fault);
    while (working.has(busy) || working.size >= AT_ONCE) await Promise.race(working.values());
    if (elapsed() >= runMs) break;
    signal.throwIfAborted();
    onFault(fault);
    const spell: Spell = { fault, from: Date.now(), over: Number.POSITIVE_INFINITY, back: Number.POSITIVE_INFINITY };
    spells.push(spell);
    const over = (): void => {
      spell.over = Math.min(spell.over, Date.now());
    };
    const done = cause({ stage, fault, signal, over })
      .catch((error: Error) => void failures.push(`${fault.kind} ${fault.target} ${fault.how}: ${error.message}`))
      .then(() => {
        over();
        spell.back = Date.now();
        working.delete(busy);
      });
    working.set(busy, done);
  }
  await Promise.all(working.values());
  return { spells, failures, kills: () => spells.filter(({ fault }) => isKill(fault)).length };
}

/** Of three brokers one at a time may be away, else nothing can be acknowledged. */
function busyKey({ kind, target }: Fault): string {
  if (kind === "broker") return "broker";
  return kind === "link" ? target.replace(/^clients>/, "") : target;
}

function isKill({ kind, how }: Fault): boolean {
  return how === "SIGKILL" || kind === "clock";
}

/** One fault on its way. */
interface Case {
  readonly stage: Stage;
  readonly fault: Fault;
  readonly signal: AbortSignal;
  /** Notes that nothing is done any more. */
  over(): void;
}

/** Causes one fault and resolves when it is over and what it broke is back. */
async function cause(one: Case): Promise<void> {
  const { stage, fault } = one;
  const replica = stage.replicas.find(({ name }) => name === fault.target);
  switch (fault.kind) {
    case "kill":
    case "term":
    case "clock":
      return restart(found(replica, fault), one);
    case "stop":
      found(replica, fault).signal("SIGSTOP");
      await pause(one);
      found(replica, fault).signal("SIGCONT");
      one.over();
      return serves(found(replica, fault));
    case "broker":
      return breakBroker(found(stage.cluster, fault), one);
    case "postgres":
      return breakPostgres(one);
    case "redis":
      return breakRedis(one);
    case "link":
      return breakLink(found(stage.links.get(fault.target), fault), one);
    case "partition":
      return isolate(one);
  }
}

/** Lets the fault last; shorter when the run is given up. */
async function pause({ fault, signal }: Case): Promise<void> {
  await delay(fault.forMs, undefined, { signal }).catch(() => undefined);
}

function found<T>(thing: T | undefined, { kind, target }: Fault): T {
  if (thing === undefined) throw new Error(`there is no ${target} for the fault ${kind}`);
  return thing;
}

async function restart(replica: ChaosReplica, { fault: { kind, how }, over }: Case): Promise<void> {
  if (kind === "clock") replica.setClock(Number(how));
  const former = replica.ready()?.pid;
  replica.signal(kind === "term" ? "SIGTERM" : "SIGKILL");
  over();
  await until(`${replica.name} has been ended`, () => replica.ready()?.pid !== former || former === undefined, {
    timeoutMs: BACK_WITHIN_MS,
  });
  await serves(replica);
}

/** Resolves when a replica answers, or when it is clear that waiting does not help: the run goes on and will tell. */
async function serves(replica: ChaosReplica): Promise<void> {
  await until(`${replica.name} serves`, async () => (await healthOf(replica))?.status === "SERVING", {
    timeoutMs: BACK_WITHIN_MS,
  }).catch(() => undefined);
}

/** What a replica's health page says; undefined where it does not answer. */
export async function healthOf(replica: ChaosReplica): Promise<{ status: string; degraded: boolean } | undefined> {
  const ready = replica.ready();
  if (ready === undefined) return undefined;
  try {
    const response = await fetch(`${ready.webUrl}/health`, { signal: AbortSignal.timeout(1_000) });
    return (await response.json()) as { status: string; degraded: boolean };
  } catch {
    await delay(100);
    return undefined;
  }
}

async function breakBroker(cluster: Cluster, one: Case): Promise<void> {
  const { target, how } = one.fault;
  const broker = cluster.brokers.find(({ number }) => target === `broker-${number}`);
  if (broker === undefined) throw new Error(`there is no ${target}`);
  broker.signal(how as NodeJS.Signals);
  await pause(one);
  if (how === "SIGSTOP") broker.signal("SIGCONT");
  else await broker.start();
  one.over();
  await until("all brokers are in sync", () => isWhole(cluster), { timeoutMs: BACK_WITHIN_MS }).catch(() => undefined);
}

/** Whether every partition has all its replicas in sync. */
async function isWhole(cluster: Cluster): Promise<boolean> {
  const kafka = new Kafka({
    brokers: [...cluster.direct],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 1_000,
    requestTimeout: 3_000,
    retry: { retries: 0 },
  });
  const admin = kafka.admin();
  try {
    await admin.connect();
    const { topics } = await admin.fetchTopicMetadata();
    return topics.every(({ partitions }) => partitions.every(({ isr, replicas }) => isr.length === replicas.length));
  } catch {
    return false;
  } finally {
    await admin.disconnect().catch(() => undefined);
    await delay(500);
  }
}

/** It is started again by whoever supervises it. */
async function breakPostgres({ stage: { postgres }, fault: { how }, over }: Case): Promise<void> {
  const { pid } = postgres;
  process.kill(pid, how as NodeJS.Signals);
  over();
  await until("Postgres answers again", async () => postgres.pid !== pid && (await answers(postgres.url)), {
    timeoutMs: BACK_WITHIN_MS,
  });
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
  client.on("error", () => undefined);
  try {
    await client.connect();
    await client.query("SELECT 1");
    return true;
  } catch {
    await delay(100);
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function breakRedis(one: Case): Promise<void> {
  const { redis } = one.stage;
  const { how } = one.fault;
  if (how === "SIGSTOP") {
    redis.freeze();
    await pause(one);
    redis.thaw();
    return one.over();
  }
  await redis.kill();
  if (how === "SIGKILL") await pause(one);
  // Without a disk it comes back empty: a flush is a quick loss.
  await redis.restart();
  one.over();
}

async function breakLink(proxies: readonly FaultProxy[], one: Case): Promise<void> {
  const { how } = one.fault;
  for (const proxy of proxies) {
    if (how === "delay") proxy.delay(LATE_MS);
    if (how === "slow") proxy.throttle(SLOW_BYTES);
    if (how === "drop") proxy.drop("end");
    if (how === "reset") proxy.drop("reset");
    if (how === "half-open") proxy.halfOpen();
    if (how === "no requests") proxy.blackHole("requests");
    if (how === "no answers") proxy.blackHole("answers");
    if (how === "cut") proxy.cut();
  }
  await pause(one);
  for (const proxy of proxies) proxy.restore();
  one.over();
}

/** Nothing reaches a replica of validation but its callers. */
async function isolate(one: Case): Promise<void> {
  const cut = ["kafka", "licensing"].flatMap((other) => one.stage.links.get(`${one.fault.target}>${other}`) ?? []);
  for (const proxy of cut) proxy.freeze();
  await pause(one);
  for (const proxy of cut) proxy.restore();
  one.over();
}

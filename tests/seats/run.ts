import { randomUUID } from "node:crypto";
import { performance } from "node:perf_hooks";
import { randomFrom } from "../random.ts";
import { checkRound } from "./check.ts";
import { playRound, type Tally } from "./round.ts";
import { setStage } from "./stage.ts";

/** How long and how many. */
export interface RunOptions {
  readonly rounds: number;
  readonly callers: number;
  readonly seed: number;
  /** Ends with the first round that left an over-allocation; for planted bugs, which show by chance. */
  readonly untilFound: boolean;
  readonly log: (line: string) => void;
}

/** What came of it. */
export interface Report extends Tally {
  readonly rounds: number;
  readonly callers: number;
  readonly seed: number;
  readonly overAllocations: number;
  /** Whatever else broke a promise; the first ones. */
  readonly findings: readonly string[];
  readonly seconds: number;
}

/** Services that serve the callers, each with connections of its own. */
const INSTANCES = 3;
/** Rounds whose licenses one customer holds; it can't hold more than 500. */
const ROUNDS_PER_CUSTOMER = 200;
/** In one of so many rounds database sessions are ended. */
const KILL_EACH = 10;
const REPORT_EACH = 500;
const MAX_FINDINGS = 20;

/** Plays rounds one after the other, each with all its callers together, and checks each. */
export async function runSeats({ rounds, callers, seed, untilFound, log }: RunOptions): Promise<Report> {
  const random = randomFrom(seed);
  const stage = await setStage(INSTANCES);
  const startedAt = performance.now();
  const tally: Tally = {
    calls: 0,
    activated: 0,
    denied: 0,
    deactivated: 0,
    heard: 0,
    released: 0,
    resized: 0,
    refused: 0,
    repeated: 0,
    jumps: 0,
    sweeps: 0,
    kills: 0,
  };
  const findings: string[] = [];
  let overAllocations = 0;
  let customerId = "";
  let round = 0;
  try {
    for (; round < rounds && !(untilFound && overAllocations > 0); round++) {
      if (round % ROUNDS_PER_CUSTOMER === 0) {
        customerId = `customer-${round}`;
        await stage.clients[0]?.customers.createCustomer({ requestId: randomUUID(), customerId, name: customerId });
      }
      const options = { customerId, callers, kills: round % KILL_EACH === KILL_EACH - 1 };
      const checked = await checkRound(stage, await playRound(stage, random, tally, options));
      overAllocations += checked.overAllocations;
      for (const finding of checked.findings.slice(0, MAX_FINDINGS - findings.length)) {
        findings.push(`round ${round}: ${finding}`);
      }
      if ((round + 1) % REPORT_EACH === 0) {
        const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
        log(`${round + 1} rounds, ${tally.calls} calls, ${overAllocations} over-allocations, ${seconds} s`);
      }
    }
  } finally {
    await stage.stop();
  }
  const seconds = Math.round((performance.now() - startedAt) / 1_000);
  return { rounds: round, callers, seed, ...tally, overAllocations, findings, seconds };
}

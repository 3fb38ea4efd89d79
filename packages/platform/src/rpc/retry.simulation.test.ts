import { afterAll, beforeAll, jest } from "@jest/globals";
import fc from "fast-check";
import { type PlatformReason, platformError } from "../errors.ts";
import { simulation } from "../testing/simulation.ts";
import { createRetrier } from "./retry.ts";

/** What the rule says (docs of `retry.ts`, guarantees "Overload"): attempts, pauses in milliseconds, and the budget. */
const rule = { attempts: 4, pausesMs: [50, 100, 200], share: 0.1, saved: 1_000 };

/** How one attempt ends. */
type End = "ok" | "down" | "busy" | "conflict" | "bug";

/** One call: when it begins after the one before, what its attempts meet, and how long it may take. */
interface Plan {
  readonly afterMs: number;
  readonly ends: readonly End[];
  readonly tookMs: number;
  readonly askedMs: number;
  readonly deadlineMs: number;
  readonly abortAfterMs: number | undefined;
}

const anyPlan = fc.record<Plan>({
  afterMs: fc.nat(300),
  ends: fc.array(fc.constantFrom<End>("ok", "down", "busy", "conflict", "bug"), { minLength: 1, maxLength: 6 }),
  tookMs: fc.nat(40),
  askedMs: fc.nat(1_500),
  deadlineMs: fc.integer({ min: 1, max: 5_000 }),
  abortAfterMs: fc.option(fc.nat(1_000), { nil: undefined, freq: 8 }),
});

/** A stretch in which every call meets the same, to spend the budget. */
const outage: Plan = {
  afterMs: 0,
  ends: ["down"],
  tookMs: 0,
  askedMs: 0,
  deadlineMs: 600_000,
  abortAfterMs: undefined,
};
const anyCourse = fc.record({
  outages: fc.nat(600),
  plans: fc.array(anyPlan, { maxLength: 60 }),
  random: fc.array(
    fc.nat(999).map((n) => n / 1_000),
    { minLength: 1, maxLength: 20 },
  ),
});

const errorOf = (end: Exclude<End, "ok">, askedMs: number): Error => {
  if (end === "bug") return new TypeError("bug");
  const reasons: Record<typeof end, PlatformReason> = {
    down: "DEPENDENCY_UNAVAILABLE",
    busy: "OVERLOADED",
    conflict: "CONFLICT_RETRY",
  };
  return platformError(reasons[end], end, end === "busy" ? { retryAfterMs: askedMs } : {});
};

/** One attempt as it was seen. */
interface Attempt {
  readonly beganMs: number;
  readonly endedMs: number;
  readonly end: End;
}

/** The course of one call, checked against the rule when it is over. */
class CallOfModel {
  readonly attempts: Attempt[] = [];
  readonly controller = new AbortController();
  readonly #plan: Plan;
  readonly #beganMs = Date.now();
  abortedMs = Number.POSITIVE_INFINITY;

  constructor(plan: Plan) {
    this.#plan = plan;
    if (plan.abortAfterMs === undefined) return;
    setTimeout(() => {
      this.abortedMs = Date.now();
      this.controller.abort();
    }, plan.abortAfterMs);
  }

  get deadlineAt(): number {
    return this.#beganMs + this.#plan.deadlineMs;
  }

  readonly attempt = async (): Promise<string> => {
    const beganMs = Date.now();
    const { ends, tookMs, askedMs } = this.#plan;
    const end = ends[Math.min(this.attempts.length, ends.length - 1)] ?? "ok";
    if (tookMs > 0) await new Promise((resolve) => setTimeout(resolve, tookMs));
    this.attempts.push({ beganMs, endedMs: Date.now(), end });
    if (end !== "ok") throw errorOf(end, askedMs);
    return "ok";
  };

  check(): void {
    if (this.attempts.length > rule.attempts) throw new Error(`${this.attempts.length} attempts`);
    for (const [index, next] of this.attempts.slice(1).entries()) {
      const before = this.attempts[index];
      if (before === undefined) continue;
      if (before.end !== "down" && before.end !== "busy") throw new Error(`repeated after "${before.end}"`);
      const askedMs = before.end === "busy" ? this.#plan.askedMs : 0;
      const pausedMs = next.beganMs - before.endedMs;
      const most = askedMs + (rule.pausesMs[index] ?? 0) + 1;
      if (pausedMs > most) throw new Error(`paused ${pausedMs} ms before attempt ${index + 2}, at most ${most}`);
      const aborted = this.abortedMs <= next.beganMs;
      if (pausedMs < askedMs && !aborted) throw new Error(`paused ${pausedMs} ms, the server asked for ${askedMs}`);
      // A timer rings up to a millisecond late.
      if (next.beganMs > this.deadlineAt + 1) throw new Error("attempted past the deadline");
    }
  }
}

/** A call that began, or an attempt that failed: what is repeated is so from then on, though after a pause. */
interface Entry {
  readonly what: "call" | "failure";
  repeated: boolean;
}

/** In no stretch of calls may more be repeated than the saved retries and a tenth of the calls. */
function checkBudget(log: readonly Entry[]): void {
  // What the stretch that ends here has beyond its share; the worst stretch that begins anywhere before.
  let beyond = 0;
  for (const { what, repeated } of log) {
    if (what === "call") beyond = Math.max(0, beyond - rule.share);
    if (repeated) beyond += 1;
    if (beyond > rule.saved + 1e-6) throw new Error("more than a tenth of the calls was repeated");
  }
}

const regressions = [
  {
    about:
      "a retry's pause lies between what it takes from the budget and its attempt: calls meanwhile are no part of it",
    seed: 1935006876,
    path: "722",
  },
];

beforeAll(() => {
  jest.useFakeTimers({ doNotFake: ["nextTick", "queueMicrotask", "setImmediate"] });
});
afterAll(() => {
  jest.useRealTimers();
});

simulation("retries stay within attempts, pauses, deadlines and the budget", { runs: 60, regressions }, () =>
  fc.asyncProperty(anyCourse, async ({ outages, plans, random }) => {
    let drawn = 0;
    const retrier = createRetrier(() => random[drawn++ % random.length] ?? 0);
    const log: Entry[] = [];
    const run = (plan: Plan): { call: CallOfModel; done: Promise<unknown> } => {
      const call = new CallOfModel(plan);
      log.push({ what: "call", repeated: false });
      let failure: Entry | undefined;
      const attempt = async (): Promise<string> => {
        if (failure) failure.repeated = true;
        try {
          return await call.attempt();
        } catch (error) {
          failure = { what: "failure", repeated: false };
          log.push(failure);
          throw error;
        }
      };
      const done = retrier.run(attempt, call.deadlineAt, call.controller.signal).catch(() => undefined);
      return { call, done };
    };
    const running = Array.from({ length: outages }, () => run(outage));
    for (const plan of plans) {
      await jest.advanceTimersByTimeAsync(plan.afterMs);
      running.push(run(plan));
    }
    await jest.advanceTimersByTimeAsync(60_000);
    await Promise.all(running.map(({ done }) => done));
    for (const { call } of running) call.check();
    checkBudget(log);
  }),
);

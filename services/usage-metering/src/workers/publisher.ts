import { setTimeout as delay } from "node:timers/promises";
import { UsageLevelsSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { asSystem } from "@licet/platform/database/database";
import { redeliveryDelayMs } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { createCondition } from "@licet/platform/events/condition";
import { createSessionLocks } from "@licet/platform/events/session-locks";
import type { Logger } from "@licet/platform/logging";
import { unlessAborted } from "@licet/platform/rpc/abort";
import type { Context } from "../context.ts";
import { liesAhead } from "../domain/level.ts";
import { toLevelsRecord } from "../events.ts";
import { requireLog } from "../log.ts";
import {
  type CustomerKey,
  type CustomerLevels,
  markPublished,
  passOver,
  raiseLevels,
  readPending,
} from "../store/levels.ts";
import { createCountedUntil } from "./counted-until.ts";

/** Publishes how much customers have used. Of all publishers of a database one works at a time; the others stand by. */
export interface Publisher {
  /** Something was counted: it is published at once, unless a round has just begun. A hint; the next round finds it. */
  wake(): void;
  stop(): Promise<void>;
}

const LOCK_NAME = "licet-usage-levels";
/** From the beginning of one round to that of the next, in milliseconds: so often a customer is told at most. */
const ROUND_MS = 1_000;
/** Customers published in one go. */
const BATCH_CUSTOMERS = 100;
/**
 * How long one batch takes at least, in milliseconds: at most 2,500 customers a second are told, as each replica of
 * validation reads them all. If more change, rounds take longer and levels get older, which their heartbeats tell.
 */
const BATCH_MS = 40;

const { name: topic } = topicOf(UsageLevelsSchema);

/**
 * Starts to publish, in rounds: what was counted is added to the levels; what has changed since it was last published is,
 * customer by customer; and then, through the topic, until when all that was accepted is in it. The log is told first and
 * the database after it, so a crash in between publishes the same again, or what is newer.
 *
 * @param url the system role's URL of the database, for the lock.
 */
export function startPublisher(ctx: Context, url: string, logger: Logger): Publisher {
  const stopping = new AbortController();
  const { signal } = stopping;
  const wakeUp = createWakeUp();
  const running = run(ctx, { url, logger, wakeUp, signal });
  return {
    wake: wakeUp.wake,
    async stop() {
      stopping.abort(new Error("the publisher of usage levels was stopped"));
      await running;
    },
  };
}

interface Options {
  readonly url: string;
  readonly logger: Logger;
  readonly wakeUp: ReturnType<typeof createWakeUp>;
  readonly signal: AbortSignal;
}

async function run(ctx: Context, { signal, ...options }: Options): Promise<void> {
  const locks = createSessionLocks({ ...options, applicationName: "licet-metering-levels-lock" });
  while (!signal.aborted) {
    const lock = await locks.acquire(LOCK_NAME, signal);
    if (lock === undefined) break;
    await lead(ctx, { ...options, signal: AbortSignal.any([signal, lock.signal]) });
    await lock.release();
  }
  await locks.stop();
}

/** Publishes until the signal aborts. */
async function lead(ctx: Context, { logger, wakeUp, signal }: Options): Promise<void> {
  const countedUntil = createCountedUntil(ctx);
  for (let failures = 0; !signal.aborted; ) {
    const nextAt = performance.now() + ROUND_MS;
    try {
      await requireLog(ctx);
      // Before the changes are taken: all that was counted by then is in them.
      const asOf = await countedUntil();
      while (await asSystem(ctx.db, raiseLevels)) signal.throwIfAborted();
      const told = await publishRound(ctx, signal);
      if (asOf !== undefined) await unlessAborted(signal, ctx.bus.heartbeat(topic, asOf));
      failures = 0;
      if (told > 0) await pause(nextAt - performance.now(), signal);
      else await wakeUp.wait(ROUND_MS, signal);
    } catch (error) {
      if (signal.aborted) return;
      const retryMs = redeliveryDelayMs(failures);
      failures += 1;
      const level = failures < 5 ? "warn" : "error";
      logger[level]({ err: error, failures, retryMs }, "the levels of usage were not published; trying again");
      await pause(retryMs, signal);
    }
  }
}

/** Publishes each customer once of whom something is pending now; says how many. */
async function publishRound(ctx: Context, signal: AbortSignal): Promise<number> {
  let told = 0;
  for (let after: CustomerKey | undefined; ; ) {
    const nextAt = performance.now() + BATCH_MS;
    const customers = await asSystem(ctx.db, (tx) => readPending(tx, after, BATCH_CUSTOMERS));
    signal.throwIfAborted();
    after = customers.at(-1);
    if (after === undefined) return told;
    await publish(ctx, customers, signal);
    told += customers.length;
    await pause(nextAt - performance.now(), signal);
  }
}

async function publish(ctx: Context, customers: readonly CustomerLevels[], signal: AbortSignal): Promise<void> {
  const now = ctx.now();
  // A bus that is down can take long to say so, and must not hold up the end.
  await unlessAborted(signal, ctx.bus.publish(customers.map((customer) => toLevelsRecord(customer, now))));
  const published = customers.flatMap(({ tenant, customerId, levels }) =>
    levels.filter((level) => !liesAhead(level, now.getTime())).map((level) => ({ tenant, customerId, ...level })),
  );
  await asSystem(ctx.db, async (tx) => {
    await markPublished(tx, published);
    for (const customer of customers) await passOver(tx, customer);
  });
  ctx.metrics.levelsPublished.add(customers.length);
}

/** A wait that a hint ends, also one that came before it began. */
function createWakeUp() {
  const condition = createCondition();
  let woken = false;
  return {
    wake(): void {
      woken = true;
      condition.notify();
    },
    async wait(ms: number, signal: AbortSignal): Promise<void> {
      if (!woken) await condition.wait(AbortSignal.any([signal, AbortSignal.timeout(ms)]));
      woken = false;
    },
  };
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms > 0) await delay(ms, undefined, { signal }).catch(() => undefined);
}

import { setTimeout as delay } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { between, pick, randomFrom } from "../random.ts";
import { type Caller, outcomeOf } from "./caller.ts";
import type { Journal, TrackEntry } from "./journal.ts";
import { eventId, metric, quantityOf, tenants, usingCustomer } from "./model.ts";

/** What the load is. */
export interface UsageLoad {
  readonly seed: number;
  /** Events a second, repetitions not counted; missed ones are made up for. */
  readonly rate: number;
  readonly lanes: number;
  /** License of each using customer, by tenant and customer. */
  readonly licenses: Readonly<Record<string, string>>;
}

/** Events of one batch at most. */
const BATCH = 200;
/** This share of the batches comes again, at once or later. */
const REPEATED = 0.3;
/** Of how many earlier batches one may come again. */
const REMEMBERED = 200;
/** How often an unanswered batch is sent in all. */
const MAX_ATTEMPTS = 200;

/** Uses until `finishing` aborts; then every batch that was begun is still sent until it is acknowledged, or `over` aborts. */
export async function runUsage(options: {
  callers: ReadonlyMap<string, Caller>;
  journal: Journal;
  load: UsageLoad;
  finishing: AbortSignal;
  over: AbortSignal;
}): Promise<void> {
  const { load, finishing } = options;
  const startedAt = performance.now();
  let sent = 0;
  const due = (): number => (load.rate * (performance.now() - startedAt)) / 1_000;
  const lane = async (number: number): Promise<void> => {
    const random = randomFrom(load.seed * 1_000 + number);
    const name = `lane-${number}`;
    const earlier: TrackEntry[] = [];
    const next = new Map<string, number>(tenants.map((tenant) => [tenant, 0]));
    for (let batch = 0; !finishing.aborted; batch++) {
      if (sent >= due()) {
        await delay(20);
        continue;
      }
      const tenant = tenants[batch % tenants.length] ?? tenants[0];
      const count = between(random, 1, BATCH);
      const first = next.get(tenant) ?? 0;
      next.set(tenant, first + count);
      sent += count;
      const entry: TrackEntry = {
        op: "track",
        call: `${name}/${batch}`,
        tenant,
        lane: name,
        first,
        count,
        customer: usingCustomer(between(random, 0, 100)),
        at: Date.now(),
      };
      // At the same time, later, or not at all.
      if (random() < REPEATED / 5) await Promise.all([send(entry, options), send(again(entry), options)]);
      else await send(entry, options);
      earlier.push(entry);
      if (earlier.length > REMEMBERED) earlier.shift();
      if (random() < REPEATED) await send(again(pick(random, earlier)), options);
    }
  };
  await Promise.all(Array.from({ length: load.lanes }, (_, number) => lane(number)));
}

let repetitions = 0;

function again(entry: TrackEntry): TrackEntry {
  return { ...entry, call: `${entry.call}/again-${repetitions++}` };
}

/** Sends a batch until it is acknowledged; each attempt is a call of its own in the journal. */
async function send(entry: TrackEntry, options: Parameters<typeof runUsage>[0]): Promise<void> {
  const { callers, journal, load, over } = options;
  const { tenant, lane, first, count, customer, at } = entry;
  const usage = callers.get(tenant)?.usage;
  if (usage === undefined) throw new Error(`there is no caller of ${tenant}`);
  const events = Array.from({ length: count }, (_, index) => ({
    id: eventId(lane, first + index),
    source: lane,
    customerId: customer,
    licenseId: load.licenses[`${tenant}/${customer}`] ?? "",
    metric,
    quantity: quantityOf(tenant, first + index),
    occurredAt: timestampFromMs(at),
  }));
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const call = `${entry.call}/${attempt}`;
    await journal.write({ ...entry, call });
    try {
      if (count <= 3) await Promise.all(events.map((event) => usage.trackUsage({ event })));
      else await usage.trackUsageBatch({ events });
      return await journal.write({ op: "end", call, outcome: "ok", at: Date.now() });
    } catch (error) {
      const { outcome, code } = outcomeOf(error);
      await journal.write({ op: "end", call, outcome, code, at: Date.now() });
      if (outcome === "fail" || over.aborted) return;
      await delay(Math.min(1_000, 50 * attempt));
    }
  }
}

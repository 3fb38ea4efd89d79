import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, jest } from "@jest/globals";
import {
  type EntitlementSnapshot,
  EntitlementSnapshotSchema,
} from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { platformError, ServiceError } from "@licet/platform/errors";
import type { EventBus, SubscribeOptions } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { createLogger } from "@licet/platform/logging";
import type { SharedCache, SharedValue } from "@licet/platform/shared-cache/shared-cache";
import { meter } from "@licet/platform/telemetry";
import { type Regression, simulation } from "@licet/platform/testing/simulation";
import fc from "fast-check";
import { type Config, defaults } from "../config.ts";
import type { Context } from "../context.ts";
import { createMetrics } from "../metrics.ts";
import { createStates } from "../watch/states.ts";
import { createWatches } from "../watch/watches.ts";
import { replicate } from "../workers/replication.ts";
import { createCatalogCache } from "./catalogs.ts";
import { createFreshness } from "./freshness.ts";
import { createLicensingClock } from "./licensing-clock.ts";
import { createSnapshotCache, type FoundSnapshot } from "./snapshots.ts";
import { createUsageCache } from "./usage.ts";

const logger = createLogger({ level: "silent", name: "snapshots-simulation" });
const tenant = "tradsys";
const customers = ["a", "b", "c", "d"] as const;
type Customer = (typeof customers)[number];
/** The version that revokes a customer's license; no later one undoes it. */
const revokedFrom = 3n;
const topic = topicOf(EntitlementSnapshotSchema).name;
const partitions = 2;
const partitionOf = (customer: Customer): number => customers.indexOf(customer) % partitions;
const config: Config = {
  ...defaults,
  maxCustomers: 2,
  unknownCustomerTtlMs: 500,
  lookUpTimeoutMs: 300,
  confirmAfterMs: 1_000,
  fenceMs: 2_000,
};
/** How far licensing's database is ahead of this machine, and how long an answer of the shared cache is waited for. */
const aheadMs = 12_345;
const sharedTimeoutMs = 50;

type Entry = { readonly event: Committed } | { readonly beat: number };

interface Committed {
  readonly customer: Customer;
  readonly version: bigint;
  readonly atMs: number;
}

/** What each party does, in its own order; the scheduler mixes them. */
interface Course {
  readonly before: readonly Customer[];
  readonly commits: readonly Customer[];
  readonly relays: readonly { readonly again: number | undefined }[];
  readonly deliveries: readonly number[];
  readonly passes: readonly number[];
  /** Whether callers come before the replica is ready. */
  readonly early: boolean;
  readonly finds: readonly { readonly customer: Customer; readonly lastWrite: boolean }[];
  readonly outages: number;
  readonly forgets: readonly Customer[];
}

const anyCustomer = fc.constantFrom(...customers);
const many = <T>(one: fc.Arbitrary<T>, maxLength: number): fc.Arbitrary<T[]> =>
  fc.array(one, { maxLength, size: "max" });
const anyCourse = fc.record<Course>({
  before: many(anyCustomer, 4),
  commits: many(anyCustomer, 10),
  relays: many(fc.record({ again: fc.option(fc.nat(10), { nil: undefined }) }), 12),
  deliveries: many(fc.integer({ min: 1, max: 4 }), 40),
  passes: many(fc.constantFrom(1, 20, 60, 300, 900, 2_500), 20),
  early: fc.boolean(),
  finds: many(fc.record({ customer: anyCustomer, lastWrite: fc.boolean() }), 30),
  outages: fc.nat(2),
  forgets: many(anyCustomer, 3),
});

/** Licensing with its database and relay, the log, and the shared cache: what a replica of validation sees of the world. */
class World {
  readonly commits: Committed[] = [];
  readonly pending: Committed[] = [];
  readonly log: Entry[][] = Array.from({ length: partitions }, () => []);
  readonly shared = new Map<string, SharedValue>();
  readonly asking = new Set<Customer>();
  readonly step: (label: string) => Promise<void>;
  ms = 1_000_000;
  away = false;
  /** A customer that licensing was asked about twice at once. */
  askedTwice: Customer | undefined;
  #reader: { readonly options: SubscribeOptions; readonly cursors: number[] } | undefined;

  constructor(step: (label: string) => Promise<void>) {
    this.step = step;
  }

  get databaseMs(): number {
    return this.ms + aheadMs;
  }

  pass(ms: number): void {
    this.ms += ms;
    jest.advanceTimersByTime(ms);
  }

  /** The customer's version once everything committed before this moment counts. */
  versionBefore(customer: Customer, databaseMs: number): bigint {
    return this.commits.findLast((one) => one.customer === customer && one.atMs < databaseMs)?.version ?? 0n;
  }

  commit(customer: Customer): void {
    const version = this.versionBefore(customer, Number.POSITIVE_INFINITY) + 1n;
    const committed = { customer, version, atMs: this.databaseMs };
    this.commits.push(committed);
    this.pending.push(committed);
  }

  /** One turn of the relay, which may send again what another one has sent. */
  async relay(again: number | undefined): Promise<void> {
    const before = this.databaseMs;
    await this.step("the relay reads");
    const old = again === undefined ? undefined : this.commits.at(again);
    const events = [...(old === undefined ? [] : [old]), ...this.pending.splice(0)];
    for (const event of events) this.log[partitionOf(event.customer)]?.push({ event });
    await this.step("the relay has published");
    for (const partition of this.log) partition.push({ beat: before });
  }

  /** Delivers the next entries of a partition to the replica. */
  async deliver(partition: number, most: number, applied: (event: Committed) => void): Promise<void> {
    const reader = this.#reader;
    const from = reader?.cursors[partition] ?? 0;
    const entries = this.log[partition]?.slice(from, from + most) ?? [];
    if (reader === undefined || entries.length === 0) return;
    for (const [index, entry] of entries.entries()) {
      if ("beat" in entry) reader.options.onHeartbeat?.({ topic, partition, issuedAt: new Date(entry.beat) });
      else {
        const offset = BigInt(from + index);
        const record = {
          topic,
          partition,
          offset,
          key: entry.event.customer,
          headers: {},
          value: bytesOf(entry.event),
        };
        const place = { topic, partition, firstOffset: offset, nextOffset: offset + 1n };
        await reader.options.handle({ ...place, records: [record], signal: new AbortController().signal });
        applied(entry.event);
      }
      reader.cursors[partition] = from + index + 1;
    }
  }

  readonly bus: Pick<EventBus, "endOffsets" | "subscribe" | "publish"> = {
    endOffsets: async () => {
      await this.step("the log's end is read");
      return this.log.map((entries, partition) => ({ topic, partition, offset: BigInt(entries.length) }));
    },
    subscribe: async (options) => {
      await this.step("a subscription begins");
      if (!options.topics.includes(topic)) return { caughtUp: async () => undefined, stop: async () => undefined };
      const from = options.reader.kind === "all" && options.reader.from !== "beginning" ? options.reader.from : [];
      const cursors = this.log.map((_, partition) =>
        Number(from.find((one) => one.partition === partition)?.offset ?? 0),
      );
      this.#reader = { options, cursors };
      return { caughtUp: async () => undefined, stop: async () => undefined };
    },
    publish: () => Promise.reject(new Error("nothing is published here")),
  };

  readonly licensing = {
    getDatabaseTime: async () => {
      await this.#travel("the question for the time");
      const databaseTime = timestampFromMs(this.databaseMs);
      await this.#travel("the time");
      return { databaseTime };
    },
    getEntitlementSnapshot: async ({ customerId }: { customerId: string }) => {
      const customer = customerId as Customer;
      if (this.asking.has(customer)) this.askedTwice = customer;
      this.asking.add(customer);
      const giveUpMs = this.ms + config.lookUpTimeoutMs;
      try {
        await this.#travel(`the question about ${customer}`);
        const snapshot = this.#read(customer);
        await this.#travel(`the answer about ${customer}`);
        if (this.ms > giveUpMs) throw platformError("DEADLINE_EXCEEDED", "too late");
        if (snapshot.version > 0n) return { snapshot };
        throw new ServiceError({ code: "NOT_FOUND", reason: "CUSTOMER_NOT_FOUND", message: "no such customer" });
      } finally {
        this.asking.delete(customer);
      }
    },
    streamEntitlementSnapshots: async function* (this: World) {
      for (const customer of customers) {
        await this.#travel(`the snapshot of ${customer}`);
        const snapshot = this.#read(customer);
        yield { catalogs: [], snapshots: snapshot.version > 0n ? [snapshot] : [] };
      }
    }.bind(this),
  };

  readonly cache: SharedCache = {
    get: async (key) => {
      const giveUpMs = this.ms + sharedTimeoutMs;
      await this.step("the shared cache reads");
      const value = this.shared.get(key);
      await this.step("the shared cache answers");
      return this.ms > giveUpMs ? undefined : value;
    },
    put: async (key, value) => {
      await this.step("the shared cache writes");
      const known = this.shared.get(key);
      if (known !== undefined && known.version > value.version) return;
      if (known?.version === value.version && known.readAtMs > value.readAtMs) return;
      this.shared.set(key, value);
    },
    stop: async () => undefined,
  };

  async #travel(what: string): Promise<void> {
    await this.step(what);
    if (this.away) throw platformError("DEPENDENCY_UNAVAILABLE", "licensing is away");
  }

  #read(customer: Customer): EntitlementSnapshot {
    const version = this.versionBefore(customer, Number.POSITIVE_INFINITY);
    return snapshotOf(customer, version, this.databaseMs);
  }
}

function snapshotOf(customer: Customer, version: bigint, issuedAtMs: number): EntitlementSnapshot {
  return create(EntitlementSnapshotSchema, {
    tenantId: tenant,
    customerId: customer,
    version,
    issuedAt: timestampFromMs(issuedAtMs),
    licenses: [{ licenseId: "l1", status: version >= revokedFrom ? LicenseStatus.REVOKED : LicenseStatus.ACTIVE }],
  });
}

function bytesOf({ customer, version, atMs }: Committed): Uint8Array {
  return toBinary(EntitlementSnapshotSchema, snapshotOf(customer, version, atMs));
}

function createContext(world: World): Context {
  const licensingClock = createLicensingClock(() => ({ wallMs: world.ms, steadyMs: world.ms }));
  const freshness = createFreshness(partitions, licensingClock.latestMs);
  // A client has more methods than the cache and the workers call.
  const licensing = world.licensing as unknown as Client<typeof LicensingService>;
  const snapshots = createSnapshotCache({ licensing, shared: world.cache, freshness, licensingClock, config, logger });
  const metrics = createMetrics(meter("simulation"), { cacheSize: () => 0, stalenessMs: () => 0, watches: () => 0 });
  const catalogs = createCatalogCache();
  const { fenceMs, maxCustomers } = config;
  const now = () => world.ms;
  const usage = createUsageCache({ partitions, maxCustomers, latestMs: licensingClock.latestMs, now });
  const watches = createWatches({ snapshots: partitions, usage: partitions }, config.watches);
  const states = createStates({ snapshots, changes: watches.changes, freshness, licensing });
  return { snapshots, catalogs, usage, freshness, licensingClock, watches, states, fenceMs, metrics, now };
}

/** What may be expected of the cache, by what it was given and has told. */
class Judge {
  readonly #world: World;
  readonly #seen = new Map<Customer, bigint>();

  constructor(world: World) {
    this.#world = world;
  }

  see(customer: Customer, version: bigint): void {
    if (version > this.seen(customer)) this.#seen.set(customer, version);
  }

  seen(customer: Customer): bigint {
    return this.#seen.get(customer) ?? 0n;
  }

  /** Judges an answer at the moment it is given. */
  answered(customer: Customer, { snapshot, source, stalenessMs }: FoundSnapshot, least: bigint): void {
    const version = snapshot?.version ?? 0n;
    const told = `${source} tells version ${version} of ${customer}`;
    if (version < least) throw new Error(`${told}, ${least} was seen or demanded`);
    const status = snapshot?.licenses[0]?.status ?? "REVOKED";
    if ((status === "REVOKED") !== (version >= revokedFrom || version === 0n)) throw new Error(`${told} as ${status}`);
    const due = this.#world.versionBefore(customer, this.#world.databaseMs - stalenessMs);
    if (version < due) throw new Error(`${told}, no older than ${stalenessMs} ms; version ${due} was there before`);
    this.see(customer, version);
  }
}

async function play(course: Course, world: World): Promise<void> {
  const ctx = createContext(world);
  const judge = new Judge(world);
  const stopping = new AbortController();
  for (const customer of course.before) world.commit(customer);
  let open = 1;

  const boot = async (): Promise<void> => {
    // A client has more methods than the workers call.
    const licensing = world.licensing as unknown as Client<typeof LicensingService>;
    const options = { bus: world.bus as EventBus, licensing, logger, signal: stopping.signal };
    for (let attempt = 0; attempt < 20; attempt++) {
      const started = await replicate(ctx, options).then(
        () => true,
        () => false,
      );
      if (started) return;
    }
  };
  const find = async ({ customer, lastWrite }: Course["finds"][number]): Promise<void> => {
    const demanded = lastWrite ? world.versionBefore(customer, Number.POSITIVE_INFINITY) : 0n;
    const seen = judge.seen(customer);
    open += 1;
    try {
      const found = await ctx.snapshots.find(tenant, customer, demanded);
      judge.answered(customer, found, demanded > seen ? demanded : seen);
    } catch (error) {
      if (!(error instanceof ServiceError) || error.code !== "UNAVAILABLE") throw error;
    } finally {
      open -= 1;
    }
  };
  const each = async <T>(label: string, plan: readonly T[], act: (one: T, index: number) => unknown): Promise<void> => {
    for (const [index, one] of plan.entries()) {
      await world.step(label);
      await act(one, index);
      if (ctx.snapshots.size > config.maxCustomers) throw new Error(`${ctx.snapshots.size} customers are in memory`);
    }
  };
  const finds: Promise<void>[] = [];
  const time = async (): Promise<void> => {
    await each("time passes", course.passes, (ms) => world.pass(ms));
    for (let round = 0; open > 0 && round < 500; round++) {
      await world.step("time passes");
      world.pass(60);
    }
  };
  const booted = boot();
  if (!course.early) await booted;
  await Promise.all([
    booted,
    time(),
    each("commit", course.commits, (customer) => world.commit(customer)),
    each("relay", course.relays, ({ again }) => world.relay(again)),
    each("deliver", course.deliveries, (most, index) =>
      world.deliver(index % partitions, most, ({ customer, version }) => judge.see(customer, version)),
    ),
    each("licensing goes or comes", Array.from({ length: 2 * course.outages }), () => {
      world.away = !world.away;
    }),
    each("forget", course.forgets, (customer) => world.shared.delete(`${tenant}/${customer}`)),
    each("find", course.finds, (one) => void finds.push(find(one))).finally(() => {
      open -= 1;
    }),
  ]);
  await Promise.all(finds);
  if (world.askedTwice !== undefined) throw new Error(`licensing was asked twice at once about ${world.askedTwice}`);
}

beforeAll(() => {
  jest.useFakeTimers({ doNotFake: ["nextTick", "queueMicrotask", "setImmediate", "performance"] });
});
afterAll(() => {
  jest.useRealTimers();
});

const regressions: readonly Regression[] = [
  { about: "what was known before the wait for licensing was told after it", seed: 1460308584, path: "40" },
  { about: "ages were told by a clock that was not compared with licensing's", seed: 778444878, path: "491" },
];
// After each step everything that follows from it happens before the next one.
const act = async (task: () => Promise<unknown>): Promise<void> => {
  await task();
  await new Promise((resolve) => setImmediate(resolve));
};

simulation(
  "snapshots never go back and are never older than told, whatever races with what",
  {
    runs: 500,
    regressions,
  },
  () =>
    fc.asyncProperty(anyCourse, fc.scheduler({ act }), async (course, scheduler) => {
      const world = new World((label) => scheduler.schedule(Promise.resolve(), label));
      await scheduler.waitFor(play(course, world));
    }),
);

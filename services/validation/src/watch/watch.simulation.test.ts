import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, jest } from "@jest/globals";
import {
  type EntitlementSnapshot,
  EntitlementSnapshotSchema,
} from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageLevelsSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import {
  type EntitlementUsage,
  WatchEntitlementsRequestSchema,
  type WatchEntitlementsResponse,
  WatchEntitlementsResponseSchema,
  type WatchHeartbeat,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { ServiceError } from "@licet/platform/errors";
import type { EventBus, SubscribeOptions } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { createLogger } from "@licet/platform/logging";
import type { Call } from "@licet/platform/rpc/call";
import { Encoded } from "@licet/platform/rpc/encoded";
import { noSharedCache } from "@licet/platform/shared-cache/shared-cache";
import { meter } from "@licet/platform/telemetry";
import { type Regression, simulation } from "@licet/platform/testing/simulation";
import fc from "fast-check";
import { createCatalogCache } from "../cache/catalogs.ts";
import { createFreshness } from "../cache/freshness.ts";
import { createLicensingClock } from "../cache/licensing-clock.ts";
import { createSnapshotCache } from "../cache/snapshots.ts";
import { createUsageCache } from "../cache/usage.ts";
import { type Config, defaults } from "../config.ts";
import type { Context } from "../context.ts";
import { createMetrics } from "../metrics.ts";
import { watchEntitlements } from "../rpc/watch-entitlements.ts";
import { replicate } from "../workers/replication.ts";
import { createStates } from "./states.ts";
import { createWatches } from "./watches.ts";

const logger = createLogger({ level: "silent", name: "watch-simulation" });
const tenant = "tradsys";
const customers = ["a", "b", "c", "d"] as const;
type Customer = (typeof customers)[number];
/** Usage metering is a second source beside licensing, with a log of its own. */
type Source = "facts" | "usage";
const topics: Readonly<Record<Source, string>> = {
  facts: topicOf(EntitlementSnapshotSchema).name,
  usage: topicOf(UsageLevelsSchema).name,
};
const partitions = 2;
const partitionOf = (customer: Customer): number => customers.indexOf(customer) % partitions;
/** So few that a watcher who was away for a while, or reads slowly, is told everything anew. */
const MAX_CHANGES = 6;
/** Fewer than there are customers, so that a watch is often in the middle of what it has to tell. */
const MAX_AT_ONCE = 2;

interface Committed {
  readonly customer: Customer;
  readonly version: bigint;
  readonly atMs: number;
}
type Entry = { readonly event: Committed } | { readonly beat: number };

/** What happens next. */
type Step =
  | { readonly kind: "commit"; readonly source: Source; readonly customer: Customer }
  /** The relay reads the time, sends what is pending, what was committed meanwhile too, and then the time. */
  | { readonly kind: "relay"; readonly source: Source; readonly meanwhile: readonly Customer[] }
  /** A relay that was frozen sends an event, or a time, that another one has sent before. */
  | { readonly kind: "late"; readonly source: Source; readonly event: number; readonly beat: number }
  | {
      readonly kind: "deliver";
      readonly source: Source;
      readonly replica: 0 | 1;
      readonly partition: number;
      readonly most: number;
      readonly skips: boolean;
    }
  | { readonly kind: "restart"; readonly replica: 0 | 1 }
  | { readonly kind: "pass"; readonly ms: number }
  | { readonly kind: "connect"; readonly replica: 0 | 1 }
  | { readonly kind: "read"; readonly messages: number }
  /** A caller of ValidateFeature brings a customer into a cache that has no room for all. */
  | { readonly kind: "ask"; readonly replica: 0 | 1; readonly customer: Customer };

const anyCustomer = fc.constantFrom(...customers);
const source = fc.constantFrom<Source[]>("facts", "usage");
const anyReplica = fc.constantFrom<(0 | 1)[]>(0, 1);
const anyStep = fc.oneof(
  { weight: 9, arbitrary: fc.record({ kind: fc.constant("commit" as const), source, customer: anyCustomer }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("relay" as const),
      source,
      meanwhile: fc.array(anyCustomer, { maxLength: 2 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("late" as const), source, event: fc.nat(20), beat: fc.nat(20) }),
  },
  {
    weight: 18,
    arbitrary: fc.record({
      kind: fc.constant("deliver" as const),
      source,
      replica: anyReplica,
      partition: fc.nat(partitions - 1),
      most: fc.integer({ min: 1, max: 6 }),
      skips: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const), replica: anyReplica }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("pass" as const), ms: fc.constantFrom(1, 300, 1_000, 4_000) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("connect" as const), replica: anyReplica }) },
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant("read" as const), messages: fc.integer({ min: 1, max: 12 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("ask" as const), replica: anyReplica, customer: anyCustomer }),
  },
);

interface Course {
  readonly steps: readonly Step[];
  /** Of all customers that there are: few, and the caches have no room for the others. */
  readonly maxCustomers: number;
  /** Empty: all. */
  readonly watched: readonly Customer[];
}

const anyCourse = fc.record<Course>({
  steps: fc.array(anyStep, { minLength: 20, maxLength: 160, size: "max" }),
  maxCustomers: fc.constantFrom(2, 100),
  watched: fc.oneof(fc.constant([]), fc.uniqueArray(anyCustomer, { minLength: 1, maxLength: 3 })),
});

/** A database, the relay that publishes what is committed to it, and the log. */
class Ledger {
  readonly commits: Committed[] = [];
  readonly log: Entry[][] = Array.from({ length: partitions }, () => []);
  readonly #beats: number[] = [];
  #pending: Committed[] = [];

  versionBefore(customer: Customer, ms: number): bigint {
    return this.commits.findLast((one) => one.customer === customer && one.atMs < ms)?.version ?? 0n;
  }

  commit(customer: Customer, atMs: number): void {
    const version = this.versionBefore(customer, Number.POSITIVE_INFINITY) + 1n;
    const committed = { customer, version, atMs };
    this.commits.push(committed);
    this.#pending.push(committed);
  }

  relay(): void {
    for (const event of this.#pending) this.#publish(event);
    this.#pending = [];
  }

  late(event: number, beat: number, onlyNewest: boolean): void {
    const published = this.log.flat().flatMap((entry) => ("event" in entry ? [entry.event] : []));
    const old = published.at(event % Math.max(1, published.length));
    const again = onlyNewest ? published.findLast(({ customer }) => customer === old?.customer) : old;
    if (again !== undefined) this.#publish(again);
    const issuedAtMs = this.#beats.at(beat % Math.max(1, this.#beats.length));
    if (issuedAtMs !== undefined) this.beat(issuedAtMs);
  }

  beat(issuedAtMs: number): void {
    this.#beats.push(issuedAtMs);
    for (const partition of this.log) partition.push({ beat: issuedAtMs });
  }

  #publish(event: Committed): void {
    this.log[partitionOf(event.customer)]?.push({ event });
  }
}

/** Licensing and usage metering. */
class World {
  readonly facts = new Ledger();
  readonly usage = new Ledger();
  ms = 1_000_000;

  pass(ms: number): void {
    this.ms += ms;
    jest.advanceTimersByTime(ms);
  }

  relay(source: Source, meanwhile: readonly Customer[]): void {
    const before = this.ms;
    for (const customer of meanwhile) {
      this.pass(1);
      this[source].commit(customer, this.ms);
    }
    this[source].relay();
    // The heartbeat leaves later than its time, and what is committed from here on is behind it.
    this.pass(1);
    this[source].beat(before);
  }

  valueOf(source: Source, customer: Customer, version: bigint): Uint8Array {
    return source === "facts"
      ? toBinary(EntitlementSnapshotSchema, this.snapshotOf(customer, version))
      : toBinary(UsageLevelsSchema, levelsOf(customer, version));
  }

  snapshotOf(customer: Customer, version: bigint): EntitlementSnapshot {
    const issuedAt = timestampFromMs(this.ms);
    return create(EntitlementSnapshotSchema, { tenantId: tenant, customerId: customer, version, issuedAt });
  }

  #present(): EntitlementSnapshot[] {
    const all = customers.map((customer) => this.snapshotOf(customer, this.facts.versionBefore(customer, Infinity)));
    return all.filter(({ version }) => version > 0n);
  }

  readonly licensing = {
    getDatabaseTime: async () => ({ databaseTime: timestampFromMs(this.ms) }),
    getEntitlementSnapshot: async ({ customerId }: { customerId: string }) => {
      const snapshot = this.#present().find((one) => one.customerId === customerId);
      if (snapshot !== undefined) return { snapshot };
      throw new ServiceError({ code: "NOT_FOUND", reason: "CUSTOMER_NOT_FOUND", message: "no such customer" });
    },
    streamEntitlementSnapshots: async function* (this: World) {
      yield { catalogs: [], snapshots: this.#present() };
    }.bind(this),
    // A client has more methods than the service calls.
  } as unknown as Client<typeof LicensingService>;
}

/** As many executions were counted as there were events. */
function levelsOf(customer: Customer, version: bigint) {
  const start = timestampFromMs(0);
  const used = `${version}`;
  const level = { metric: "executions", dayStart: start, dayUsed: used, monthStart: start, monthUsed: used };
  const levels = [{ ...level, lifetimeUsed: used }];
  return create(UsageLevelsSchema, { tenantId: tenant, customerId: customer, version, levels });
}

/** What a consumer reads of a log. */
interface LogReader {
  readonly options: SubscribeOptions;
  readonly cursors: number[];
}

/** An instance of validation. */
class Replica {
  readonly ctx: Context;
  /** The customers that it was told of at its start or by an event. */
  readonly heardOf = new Set<string>();
  readonly #world: World;
  readonly #readers = new Map<Source, LogReader>();

  constructor(world: World, maxCustomers: number) {
    this.#world = world;
    const config: Config = { ...defaults, maxCustomers };
    const licensingClock = createLicensingClock(() => ({ wallMs: world.ms, steadyMs: world.ms }));
    const freshness = createFreshness(partitions, licensingClock.latestMs);
    const { licensing } = world;
    const snapshots = createSnapshotCache({
      licensing,
      shared: noSharedCache,
      freshness,
      licensingClock,
      config,
      logger,
    });
    const watches = createWatches({ snapshots: partitions, usage: partitions }, config.watches, {
      maxChanges: MAX_CHANGES,
      maxAtOnce: MAX_AT_ONCE,
    });
    const now = () => world.ms;
    this.ctx = {
      snapshots,
      catalogs: createCatalogCache(),
      usage: createUsageCache({ partitions, maxCustomers, latestMs: licensingClock.latestMs, now }),
      freshness,
      licensingClock,
      watches,
      states: createStates({ snapshots, changes: watches.changes, freshness, licensing }),
      fenceMs: config.fenceMs,
      metrics: createMetrics(meter("simulation"), { cacheSize: () => 0, stalenessMs: () => 0, watches: () => 0 }),
      now,
    };
  }

  async boot(): Promise<void> {
    const bus: Pick<EventBus, "endOffsets" | "publish" | "subscribe"> = {
      endOffsets: async () => this.#ends("facts"),
      publish: () => Promise.reject(new Error("nothing is published here")),
      subscribe: async (options) => {
        const { reader } = options;
        if (options.topics.includes(topics.facts) && reader.kind === "all" && reader.from !== "beginning") {
          this.#readers.set("facts", { options, cursors: reader.from.map(({ offset }) => Number(offset)) });
        }
        if (options.topics.includes(topics.usage)) {
          this.#readers.set("usage", { options, cursors: new Array<number>(partitions).fill(0) });
        }
        return { caughtUp: () => this.#catchUp(), stop: async () => undefined };
      },
    };
    const signal = new AbortController().signal;
    for (const { customer } of this.#world.facts.commits) this.heardOf.add(customer);
    await replicate(this.ctx, { bus: bus as EventBus, licensing: this.#world.licensing, logger, signal });
  }

  #ends(source: Source) {
    return this.#world[source].log.map((entries, partition) => {
      return { topic: topics[source], partition, offset: BigInt(entries.length) };
    });
  }

  /** Of the topic that is read from its beginning, and is compacted: what was published before the start. */
  async #catchUp(): Promise<void> {
    for (let partition = 0; partition < partitions; partition++) {
      await this.deliver("usage", partition, Number.POSITIVE_INFINITY, true, true);
    }
  }

  async deliver(source: Source, partition: number, most: number, skips: boolean, compacted = false): Promise<void> {
    const log = this.#world[source].log[partition] ?? [];
    const { options, cursors } = this.#readers.get(source) ?? {};
    const topic = topics[source];
    for (let count = 0; count < most && options !== undefined && cursors !== undefined; count++) {
      const index = cursors[partition] ?? 0;
      const entry = log[index];
      if (entry === undefined) return;
      cursors[partition] = index + 1;
      const later = log.slice(index + 1);
      if ("beat" in entry) {
        // One may be left out when a newer one follows.
        const newer = later.some((other) => "beat" in other && other.beat >= entry.beat);
        if (!(skips && newer)) options.onHeartbeat?.({ topic, partition, issuedAt: new Date(entry.beat) });
        continue;
      }
      const { customer, version } = entry.event;
      const isLast = !later.some((other) => "event" in other && other.event.customer === customer);
      if (compacted && !isLast) continue;
      const value = this.#world.valueOf(source, customer, version);
      const record = { topic, partition, offset: BigInt(index), key: customer, headers: {}, value };
      const place = { topic, partition, firstOffset: record.offset, nextOffset: record.offset + 1n };
      await options.handle({ ...place, records: [record], signal: new AbortController().signal });
      if (source === "facts") this.heardOf.add(customer);
    }
  }
}

/** A watcher as the contract tells it to be, and what it may expect. */
class Watcher {
  readonly known = new Map<string, bigint>();
  readonly usage = new Map<string, { readonly version: bigint; readonly asOfMs: number }>();
  readonly #world: World;
  readonly #watched: readonly Customer[];
  readonly #inStream = new Map<string, bigint>();
  #token = "";
  #told: Set<string> | undefined;
  #usageTold = new Set<string>();
  /** What may be forgotten for a while: the instance that tells everything anew had not heard of it when it began. */
  #unheard: readonly string[] = [];
  #stream:
    | { readonly messages: AsyncIterator<unknown>; readonly leave: () => void; readonly replica: Replica }
    | undefined;
  #next: Promise<void> | undefined;
  synchronizedStreams = 0;
  vouchedForUsage = false;

  constructor(world: World, watched: readonly Customer[]) {
    this.#world = world;
    this.#watched = watched;
  }

  connect(replica: Replica): void {
    this.leave();
    const controller = new AbortController();
    // The handler needs no more of a call.
    const call = {
      tenant,
      signal: controller.signal,
      // The pipeline's part; here watchers leave in the middle anyway.
      cutOff: () => undefined,
    } as unknown as Call;
    const request = create(WatchEntitlementsRequestSchema, {
      customerIds: [...this.#watched],
      resumeToken: this.#token,
    });
    const messages = watchEntitlements(replica.ctx, call, request)[Symbol.asyncIterator]();
    const leave = (): void => {
      controller.abort(new ServiceError({ code: "CANCELLED", reason: "CANCELLED", message: "left" }));
      void messages.return?.();
    };
    this.#inStream.clear();
    this.#told = undefined;
    this.#stream = { messages, leave, replica };
  }

  leave(): void {
    this.#stream?.leave();
    this.#stream = undefined;
    this.#next = undefined;
  }

  /** Takes up to so many messages, as many as are there. */
  async read(most: number): Promise<void> {
    for (let count = 0; count < most && this.#stream !== undefined; count++) {
      const stream = this.#stream;
      let taken = false;
      this.#next ??= stream.messages.next().then(
        ({ value }) => {
          this.#next = undefined;
          taken = true;
          if (this.#stream === stream) this.#take(toMessage(value));
        },
        (error: unknown) => {
          this.#next = undefined;
          if (this.#stream !== stream) return;
          throw error;
        },
      );
      const next = this.#next.then(() => (taken = true));
      await Promise.race([next, settle()]);
      if (!taken) return;
    }
  }

  #take({ resumeToken, content }: WatchEntitlementsResponse): void {
    switch (content.case) {
      case "reset":
        this.#told = new Set();
        this.#usageTold = new Set();
        this.#unheard = [...this.known.keys()].filter((customerId) => !this.#stream?.replica.heardOf.has(customerId));
        break;
      case "snapshot":
        this.#apply(content.value);
        break;
      case "usage":
        this.#applyUsage(content.value);
        break;
      case "synchronized":
        this.synchronizedStreams++;
        this.#forget();
        this.#vouched(content.value);
        break;
      case "heartbeat":
        this.#vouched(content.value);
        break;
      default:
        throw new Error(`there is no ${content.case} here`);
    }
    this.#token = resumeToken;
  }

  #apply({ customerId, version }: EntitlementSnapshot): void {
    const before = this.#inStream.get(customerId) ?? 0n;
    if (version < before) throw new Error(`${customerId} went back from ${before} to ${version} in one stream`);
    this.#inStream.set(customerId, version);
    this.#told?.add(customerId);
    if (version > (this.known.get(customerId) ?? 0n)) this.known.set(customerId, version);
  }

  #applyUsage({ customerId, version, asOf, levels }: EntitlementUsage): void {
    if (levels.length !== 3 || levels.some(({ used }) => used !== `${version}`)) throw new Error("counters are lost");
    if (asOf === undefined) throw new Error("usage has no age");
    if (!this.known.has(customerId)) return;
    this.#usageTold.add(customerId);
    const told = { version, asOfMs: timestampMs(asOf) };
    const known = this.usage.get(customerId) ?? { version: 0n, asOfMs: 0 };
    if (version > known.version || (version === known.version && told.asOfMs >= known.asOfMs)) {
      this.usage.set(customerId, told);
    }
    this.#hasUsage(customerId as Customer, told.asOfMs);
  }

  #hasUsage(customer: Customer, asOfMs: number): void {
    const used = this.#world.usage.versionBefore(customer, asOfMs);
    const known = this.usage.get(customer)?.version ?? 0n;
    if (known < used) {
      throw new Error(`as of ${asOfMs} ${customer} had used ${used}, and the watcher knows of ${known}`);
    }
  }

  #forget(): void {
    for (const customerId of this.known.keys()) {
      if (this.#told === undefined || this.#told.has(customerId)) continue;
      if (!this.#unheard.includes(customerId)) throw new Error(`${customerId} was forgotten`);
      this.known.delete(customerId);
      this.usage.delete(customerId);
    }
    for (const customerId of this.#told === undefined ? [] : this.usage.keys()) {
      if (!this.#usageTold.has(customerId)) this.usage.delete(customerId);
    }
    this.#told = undefined;
  }

  #vouched({ factsAsOf, usageAsOf }: WatchHeartbeat): void {
    if (usageAsOf !== undefined) {
      this.vouchedForUsage = true;
      for (const customerId of this.known.keys()) this.#hasUsage(customerId as Customer, timestampMs(usageAsOf));
    }
    const asOfMs = factsAsOf === undefined ? 0 : timestampMs(factsAsOf);
    for (const customer of this.#watched.length > 0 ? this.#watched : customers) {
      const committed = this.#world.facts.versionBefore(customer, asOfMs);
      const known = this.known.get(customer) ?? 0n;
      if (known < committed) {
        throw new Error(
          `as of ${asOfMs} there was version ${committed} of ${customer}, and the watcher knows ${known}`,
        );
      }
    }
  }
}

/** What a caller would read. */
function toMessage(sent: unknown): WatchEntitlementsResponse {
  if (sent instanceof Encoded) return fromBinary(WatchEntitlementsResponseSchema, sent.bytes);
  return create(WatchEntitlementsResponseSchema, sent as object);
}

/** Everything that follows from what has happened happens. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function play({ steps, maxCustomers, watched }: Course): Promise<void> {
  const world = new World();
  const boot = async (): Promise<Replica> => {
    const replica = new Replica(world, maxCustomers);
    await replica.boot();
    return replica;
  };
  const replicas: [Replica, Replica] = [await boot(), await boot()];
  const watcher = new Watcher(world, watched);
  for (const step of steps) {
    switch (step.kind) {
      case "commit":
        world[step.source].commit(step.customer, world.ms);
        world.pass(1);
        break;
      case "relay":
        world.relay(step.source, step.meanwhile);
        break;
      case "late":
        // Of usage metering one publishes at a time, which crashes before it notes what it has published.
        world[step.source].late(step.event, step.beat, step.source === "usage");
        break;
      case "deliver":
        await replicas[step.replica].deliver(step.source, step.partition, step.most, step.skips);
        break;
      case "restart":
        watcher.leave();
        replicas[step.replica] = await boot();
        break;
      case "pass":
        world.pass(step.ms);
        break;
      case "connect":
        watcher.connect(replicas[step.replica]);
        break;
      case "read":
        await watcher.read(step.messages);
        break;
      case "ask":
        await replicas[step.replica].ctx.snapshots.find(tenant, step.customer, 0n);
        break;
    }
    await settle();
  }
  await conclude(world, replicas[0], watcher, watched, maxCustomers < customers.length);
}

/** Once everything has arrived, the watcher knows the truth. */
async function conclude(
  world: World,
  replica: Replica,
  watcher: Watcher,
  watched: readonly Customer[],
  isSmall: boolean,
): Promise<void> {
  for (const source of ["facts", "usage"] as const) {
    world.relay(source, []);
    for (let partition = 0; partition < partitions; partition++) {
      await replica.deliver(source, partition, Number.POSITIVE_INFINITY, false);
    }
  }
  watcher.vouchedForUsage = false;
  watcher.connect(replica);
  // It may begin from the beginning several times while it is told what was missed.
  for (let round = 0; round < 10; round++) {
    await watcher.read(100);
    world.pass(1_000);
  }
  watcher.leave();
  await settle();
  if (watcher.synchronizedStreams === 0) throw new Error("the watcher was never synchronized");
  for (const customer of watched.length > 0 ? watched : customers) {
    const committed = world.facts.versionBefore(customer, Number.POSITIVE_INFINITY);
    const known = watcher.known.get(customer) ?? 0n;
    if (known !== committed) throw new Error(`${customer} has version ${committed}, and the watcher knows ${known}`);
    const used = committed === 0n || isSmall ? 0n : world.usage.versionBefore(customer, Number.POSITIVE_INFINITY);
    const knownUsed = watcher.usage.get(customer)?.version ?? 0n;
    if (knownUsed < used) throw new Error(`${customer} has used ${used}, and the watcher knows of ${knownUsed}`);
  }
  if (!isSmall && !watcher.vouchedForUsage) throw new Error("usage was never vouched for");
  if (replica.ctx.watches.size !== 0) throw new Error(`${replica.ctx.watches.size} watches are still open`);
}

beforeAll(() => {
  jest.useFakeTimers({ doNotFake: ["nextTick", "queueMicrotask", "setImmediate"] });
});
afterAll(() => {
  jest.useRealTimers();
});

const regressions: readonly Regression[] = [
  {
    about:
      "usage of a customer who became known at an instance that is behind was vouched for as far as another one was",
    seed: 404558193,
    path: "5",
  },
  { about: "usage that was driven out of memory before it was told was vouched for", seed: 1797214532, path: "1306" },
];

simulation(
  "a watcher comes to know the truth, of usage too, never goes back, and is vouched for nothing that it was not told, however often it is cut off",
  { runs: 200, regressions },
  () => fc.asyncProperty(anyCourse, play),
);

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import {
  type EntitlementUsage,
  type WatchEntitlementsResponse,
  WatchEntitlementsResponseSchema,
  type WatchHeartbeat,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Catalog } from "@licet/decide/entitlement";
import { toCatalog, toSnapshot, toUsage } from "@licet/decide/from-wire";
import { catalogToWire, snapshotToWire, usageToWire } from "@licet/decide/to-wire";
import type { Moment, TrustedClock } from "./clock.ts";
import { createDecider, type Decider, type KnownFacts, type WhyNoFacts } from "./decider.ts";
import { clientClosed, LicetError } from "./errors.ts";
import { createKnownCustomers, type KnownCustomer, type KnownUsage } from "./known-customers.ts";

/** For how many milliseconds facts are young enough; from then on features' fail modes decide. As the service's fence. */
export const FENCE_MS = 30_000;
/** How many customers are held. */
const MAX_CUSTOMERS = 1_000_000;
/** Of how many customers it is known for which verdicts their facts hold; with one more all begin anew. */
const MAX_HOLDS = 200_000;

/** What a watch has told, as it is kept over a restart. */
export interface SavedFacts {
  /** Where the watch goes on. */
  readonly resumeToken: string;
  /** By the trusted clock, in epoch milliseconds: what was committed before is in the facts. */
  readonly factsAsOfMs: number;
  /** See {@link WatchedFacts.usageAsOfMs}. */
  readonly usageAsOfMs?: number | undefined;
  /** Catalogues, and of each customer the snapshot and the usage, as a watch tells them. */
  readonly messages: Iterable<Uint8Array>;
}

/** All that a watch has told, and what follows from it. */
export interface WatchedFacts extends Pick<Decider, "check" | "explain" | "counts"> {
  /**
   * Takes over a message of a watch that was asked for at `askedAt`.
   *
   * @throws {LicetError} RESOURCE_EXHAUSTED for more customers than are held.
   */
  apply(message: WatchEntitlementsResponse, askedAt: Moment): void;
  /** Whether everything that is watched was told once. */
  readonly complete: boolean;
  /** Whether a first state is on its way that will replace what is known. */
  readonly resetting: boolean;
  /** Where a watch goes on; empty: from the beginning. */
  resumeToken: string;
  /** By the trusted clock, in epoch milliseconds: what was committed before is in the facts. */
  readonly factsAsOfMs: number;
  /**
   * What customers have used that was accepted before is known, in epoch milliseconds; undefined: of some of whom nothing was
   * told, nothing is known.
   */
  readonly usageAsOfMs: number | undefined;
  /** For how many milliseconds the facts have been too old; negative while they are not. */
  overdueMs(): number;
  /** Notes the time that has passed; to be called each second or so. */
  tick(): void;
  /** Rises with each change of what {@link save} returns, but for the numbers of its head. */
  readonly revision: number;
  /**
   * What is known now. Messages are made while they are read, so that not all are in memory at once; what comes meanwhile may
   * be among them or not: a watch that goes on from the token tells it again.
   */
  save(): SavedFacts;
  /** Ends it: afterwards every check is refused. */
  close(): void;
}

/** What verdicts of the same facts have in common. */
interface Hold {
  /** Once something else holds: until when the facts are known to have held, in epoch milliseconds of their clock. */
  heldUntilMs: number | undefined;
}

/** What verdicts about a customer have in common, as long as nothing changes that. */
interface Holds {
  /** Of the snapshot, by the trusted clock. */
  readonly facts: Hold;
  /** Of what is known of usage, by usage metering's clock. */
  readonly usage: Hold;
}

/** Of whom nothing was told. */
const nothingUsed: KnownUsage = {
  version: 0n,
  levels: new Map(),
  asOfMs: Number.NEGATIVE_INFINITY,
  telling: 0,
};

/** What {@link createWatchedFacts} needs. */
export interface WatchedFactsOptions {
  readonly clock: TrustedClock;
  /** The customers watched; undefined: all of the tenant. */
  readonly customerIds?: readonly string[] | undefined;
  /** What was saved before a restart. */
  readonly saved?: SavedFacts | undefined;
  /** The machine's steady clock alone; `performance.now` when absent. */
  readonly steadyMs?: () => number;
}

/** Creates what was saved, or nothing. */
export function createWatchedFacts(options: WatchedFactsOptions): WatchedFacts {
  return new Watched(options);
}

class Watched implements WatchedFacts {
  complete = false;
  resumeToken = "";
  factsAsOfMs = Number.NEGATIVE_INFINITY;
  revision = 0;
  readonly check: Decider["check"];
  readonly explain: Decider["explain"];
  readonly counts: Decider["counts"];
  readonly #clock: TrustedClock;
  readonly #decider: Decider;
  readonly #watched: ReadonlySet<string> | undefined;
  readonly #customers = createKnownCustomers();
  /** Of the customers that were asked about since their facts changed. */
  readonly #holds = new Map<string, Holds>();
  readonly #catalogs = new Map<string, Catalog>();
  /** What was known at the last `reset` and was not told since; undefined: there is no first state on its way. */
  #untold: { readonly customers: Set<string>; readonly products: Set<string> } | undefined;
  /** How many times the first state has begun, and with which of them usage begins that still holds. */
  #telling = 0;
  #usageFrom = 0;
  /** See {@link WatchedFacts.usageAsOfMs}; but for those who came since somebody first vouched, and are not vouched for yet. */
  #usageVouchedMs: number | undefined;
  readonly #newcomers = new Set<string>();
  #closed = false;

  constructor({ clock, customerIds, saved, steadyMs }: WatchedFactsOptions) {
    this.#clock = clock;
    this.#watched = customerIds && new Set(customerIds);
    this.#decider = createDecider({
      clock,
      factsOf: (customerId, nowMs) => this.#factsOf(customerId, nowMs),
      whyNoFacts: (customerId) => this.#whyNoFacts(customerId),
      steadyMs,
    });
    this.check = this.#decider.check;
    this.explain = this.#decider.explain;
    this.counts = this.#decider.counts;
    if (saved === undefined) return;
    for (const bytes of saved.messages) this.#take(fromBinary(WatchEntitlementsResponseSchema, bytes));
    this.resumeToken = saved.resumeToken;
    this.factsAsOfMs = saved.factsAsOfMs;
    if (saved.usageAsOfMs !== undefined) this.#vouchUsage(saved.usageAsOfMs);
    this.complete = true;
  }

  get usageAsOfMs(): number | undefined {
    return this.#newcomers.size > 0 ? undefined : this.#usageVouchedMs;
  }

  get resetting(): boolean {
    return this.#untold !== undefined;
  }

  apply(message: WatchEntitlementsResponse, askedAt: Moment): void {
    const { content } = message;
    switch (content.case) {
      case "reset":
        this.#untold = { customers: new Set(this.#customers.keys()), products: new Set(this.#catalogs.keys()) };
        this.#telling += 1;
        break;
      case "synchronized":
        this.#calibrate(content.value, askedAt);
        this.#synchronized(content.value);
        break;
      case "heartbeat":
        this.#calibrate(content.value, askedAt);
        if (this.complete && this.#untold === undefined) this.#vouch(content.value, this.factsAsOfMs);
        break;
      default:
        this.#take(message);
    }
    this.resumeToken = message.resumeToken;
  }

  overdueMs(): number {
    return this.#clock.nowMs() - this.factsAsOfMs - FENCE_MS;
  }

  tick(): void {
    if (this.#clock.tick()) this.#decider.forgetAll();
  }

  save(): SavedFacts {
    const { resumeToken, factsAsOfMs, usageAsOfMs } = this;
    return { resumeToken, factsAsOfMs, usageAsOfMs, messages: this.#messages(usageAsOfMs !== undefined) };
  }

  close(): void {
    this.#closed = true;
    this.#decider.forgetAll();
  }

  /** @param vouched whether usage is vouched for of all there are: who comes while they are read is left to the token then. */
  *#messages(vouched: boolean): Generator<Uint8Array> {
    for (const catalog of this.#catalogs.values()) yield encode({ case: "catalog", value: catalogToWire(catalog) });
    for (const customerId of this.#customers.keys()) {
      const known = this.#customers.peek(customerId);
      if (known === undefined || (vouched && this.#newcomers.has(customerId))) continue;
      yield encode({ case: "snapshot", value: snapshotToWire(known.snapshot) });
      const usage = this.#usageOf(known);
      if (usage) yield encode({ case: "usage", value: usageToWire({ customerId, ...usage }) });
    }
  }

  /** Takes over what a message tells, unless a higher version is known: replicas may lag behind each other. */
  #take({ content }: WatchEntitlementsResponse): void {
    if (content.case === "snapshot") {
      const snapshot = toSnapshot(content.value);
      const { customerId, version } = snapshot;
      this.#untold?.customers.delete(customerId);
      if (version === 0n) {
        this.#drop(customerId);
        return;
      }
      const known = this.#customers.peek(customerId);
      if (known !== undefined && known.snapshot.version >= version) return;
      if (known === undefined && this.#customers.size >= MAX_CUSTOMERS) throw tooManyCustomers();
      this.#endHolds(customerId, { facts: true });
      this.#customers.set(customerId, { snapshot, usage: known?.usage });
      if (known === undefined && this.#usageVouchedMs !== undefined) this.#newcomers.add(customerId);
      this.#decider.forget(customerId);
      this.revision += 1;
    } else if (content.case === "catalog") {
      const catalog = toCatalog(content.value);
      this.#untold?.products.delete(catalog.product);
      if ((this.#catalogs.get(catalog.product)?.version ?? -1n) >= catalog.version) return;
      this.#catalogs.set(catalog.product, catalog);
      this.#decider.forgetAll();
      this.revision += 1;
    } else if (content.case === "usage") this.#takeUsage(content.value);
  }

  #takeUsage(told: EntitlementUsage): void {
    const { customerId, version, asOf } = told;
    const known = this.#customers.peek(customerId);
    // Of a customer that there is not, nothing is held, so that customers bound what is.
    if (asOf === undefined || known === undefined) return;
    const usage = { ...toUsage(told, toMs(asOf)), version, telling: this.#telling };
    const before = this.#usageOf(known);
    if (before !== undefined && isOlder(usage, before)) {
      // An instance that is behind has told that there is usage; what is known of it is younger.
      this.#customers.set(customerId, { ...known, usage: { ...before, telling: this.#telling } });
      return;
    }
    this.#endHolds(customerId, { usage: true });
    this.#customers.set(customerId, { ...known, usage });
    this.#decider.forget(customerId);
    this.revision += 1;
  }

  #drop(customerId: string): void {
    if (!this.#customers.has(customerId)) return;
    this.#endHolds(customerId, { facts: true, usage: true });
    this.#customers.delete(customerId);
    this.#newcomers.delete(customerId);
    this.#decider.forget(customerId);
    this.revision += 1;
  }

  #holdsOf(customerId: string): Holds {
    const known = this.#holds.get(customerId);
    if (known !== undefined) return known;
    // Their verdicts still hold, but no change would tell them that they don't: from now on they only get older.
    if (this.#holds.size >= MAX_HOLDS) this.#endAllHolds();
    const holds = { facts: { heldUntilMs: undefined }, usage: { heldUntilMs: undefined } };
    this.#holds.set(customerId, holds);
    return holds;
  }

  /** Something else holds of a customer: another snapshot, another usage. */
  #endHolds(customerId: string, ended: { readonly facts?: boolean; readonly usage?: boolean }): void {
    const holds = this.#holds.get(customerId);
    if (holds === undefined) return;
    if (ended.facts) holds.facts.heldUntilMs = this.factsAsOfMs;
    if (ended.usage) holds.usage.heldUntilMs = this.#usageVouchedOf(customerId) ?? Number.NEGATIVE_INFINITY;
    if (ended.facts && ended.usage) this.#holds.delete(customerId);
    else if (ended.facts) this.#holds.set(customerId, { ...holds, facts: { heldUntilMs: undefined } });
    else this.#holds.set(customerId, { ...holds, usage: { heldUntilMs: undefined } });
  }

  #endAllHolds(): void {
    for (const customerId of this.#holds.keys()) this.#endHolds(customerId, { facts: true, usage: true });
  }

  /** The first state is complete, or what was missed is: what a reset has not told again is no more. */
  #synchronized(heartbeat: WatchHeartbeat): void {
    const untold = this.#untold;
    if (untold !== undefined) {
      for (const customerId of untold.customers) this.#drop(customerId);
      for (const product of untold.products) this.#catalogs.delete(product);
      this.#untold = undefined;
      this.#endAllHolds();
      this.#usageFrom = this.#telling;
      this.revision += 1;
    }
    const first = !this.complete;
    this.complete = true;
    // After a reset another instance speaks for all that is known, and may know less of late.
    if (untold !== undefined) {
      this.#usageVouchedMs = undefined;
      this.#newcomers.clear();
    }
    this.#vouch(heartbeat, untold === undefined ? this.factsAsOfMs : Number.NEGATIVE_INFINITY);
    if (first || untold !== undefined) this.#decider.forgetAll();
  }

  #vouch({ factsAsOf, usageAsOf }: WatchHeartbeat, atLeastMs: number): void {
    if (usageAsOf !== undefined) this.#vouchUsage(toMs(usageAsOf));
    if (factsAsOf === undefined) return;
    const wereOverdue = this.overdueMs() >= 0;
    this.factsAsOfMs = Math.max(atLeastMs, toMs(factsAsOf));
    if (wereOverdue) this.#decider.forgetAll();
  }

  #vouchUsage(asOfMs: number): void {
    const before = this.#usageVouchedMs;
    // An instance that is behind vouches for newcomers less far than another one has for the others.
    if (before !== undefined && asOfMs < before) return;
    this.#usageVouchedMs = asOfMs;
    if (before === undefined) this.#decider.forgetAll();
    else for (const customerId of this.#newcomers) this.#decider.forget(customerId);
    this.#newcomers.clear();
  }

  #calibrate({ sentAt }: WatchHeartbeat, askedAt: Moment): void {
    if (sentAt === undefined) return;
    if (this.#clock.calibrate(askedAt, toMs(sentAt))) this.#decider.forgetAll();
  }

  #factsOf(customerId: string, nowMs: number): KnownFacts | undefined {
    if (this.#closed) throw clientClosed();
    if (!this.complete || this.#watched?.has(customerId) === false) return undefined;
    const overdueMs = nowMs - this.factsAsOfMs - FENCE_MS;
    const known = this.#customers.get(customerId);
    // Of a customer that there is not, a change would not be seen here: its verdicts are as old as when they were made.
    const { facts, usage: usageHold } =
      known === undefined ? { facts: { heldUntilMs: this.factsAsOfMs }, usage: undefined } : this.#holdsOf(customerId);
    const usage = known && this.#usageAtAll(known);
    // Verdicts keep the functions, and with them whatever these name.
    const usageAsOfMs = usage?.asOfMs;
    return {
      snapshot: known?.snapshot,
      catalogs: this.#catalogs,
      usage: usage && { levels: usage.levels, asOfMs: this.#usageHeldUntil(customerId, usage.asOfMs) },
      overdueMs,
      holdsUntilMs: overdueMs < 0 ? this.factsAsOfMs + FENCE_MS : undefined,
      stalenessMs: (atMs) => Math.max(0, atMs - (facts.heldUntilMs ?? this.factsAsOfMs)),
      usageStalenessMs: (atMs) =>
        usageAsOfMs === undefined
          ? undefined
          : Math.max(0, atMs - this.#usageHeldUntil(customerId, usageAsOfMs, usageHold?.heldUntilMs)),
    };
  }

  /** What was told of a customer's usage, unless a first state since then has not told it again. */
  #usageOf({ usage }: KnownCustomer): KnownUsage | undefined {
    return usage !== undefined && usage.telling >= this.#usageFrom ? usage : undefined;
  }

  /** As {@link #usageOf}; of whom nothing was told has used nothing where somebody vouches for that. */
  #usageAtAll(known: KnownCustomer): KnownUsage | undefined {
    const vouchedMs = this.#usageVouchedOf(known.snapshot.customerId);
    return this.#usageOf(known) ?? (vouchedMs === undefined ? undefined : nothingUsed);
  }

  /** What was accepted before is in it, as long as it is held: of what it lacks then, a later message would have told. */
  #usageHeldUntil(customerId: string, asOfMs: number, heldUntilMs?: number | undefined): number {
    return Math.max(asOfMs, heldUntilMs ?? this.#usageVouchedOf(customerId) ?? Number.NEGATIVE_INFINITY);
  }

  #usageVouchedOf(customerId: string): number | undefined {
    return this.#newcomers.has(customerId) ? undefined : this.#usageVouchedMs;
  }

  #whyNoFacts(customerId: string): WhyNoFacts {
    if (this.#watched?.has(customerId) !== false) {
      return {
        reason: "NO_FACTS",
        sentence: "Nothing is known yet: this client has not been ready since it was created.",
      };
    }
    const named = JSON.stringify(customerId);
    const sentence = `Customer ${named} is not among the customers that this client watches (customerIds).`;
    return { reason: "NOT_COVERED", sentence };
  }
}

/** Whether usage was told by an instance that is behind; of equal versions the younger may tell of a window that has begun. */
function isOlder(usage: KnownUsage, than: KnownUsage): boolean {
  return usage.version < than.version || (usage.version === than.version && usage.asOfMs < than.asOfMs);
}

function encode(content: WatchEntitlementsResponse["content"]): Uint8Array {
  return toBinary(WatchEntitlementsResponseSchema, create(WatchEntitlementsResponseSchema, { content }));
}

function toMs(time: Timestamp): number {
  return Math.floor(timestampMs(time));
}

function tooManyCustomers(): LicetError {
  return new LicetError({
    code: "RESOURCE_EXHAUSTED",
    reason: "TOO_MANY_CUSTOMERS",
    message: `the tenant has more than ${MAX_CUSTOMERS} customers: name those to watch (customerIds), or use mode "remote"`,
  });
}

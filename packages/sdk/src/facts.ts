import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import {
  type WatchEntitlementsResponse,
  WatchEntitlementsResponseSchema,
  type WatchHeartbeat,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Catalog, Snapshot, Usage } from "@licet/decide/entitlement";
import { toCatalog, toSnapshot, toUsage } from "@licet/decide/from-wire";
import type { Moment, TrustedClock } from "./clock.ts";
import { createDecider, type Decider, type KnownFacts } from "./decider.ts";
import { clientClosed, LicetError } from "./errors.ts";

/** For how many milliseconds facts are young enough; from then on features' fail modes decide. As the service's fence. */
export const FENCE_MS = 30_000;
/** How many customers are held. */
const MAX_CUSTOMERS = 1_000_000;

/** What a watch has told, as it is kept over a restart. */
export interface SavedFacts {
  /** Where the watch goes on. */
  readonly resumeToken: string;
  /** By the trusted clock, in epoch milliseconds: what was committed before is in the facts. */
  readonly factsAsOfMs: number;
  /** Catalogues and snapshots, as they were told. */
  readonly messages: readonly Uint8Array[];
}

/** All that a watch has told, and what follows from it. */
export interface WatchedFacts extends Pick<Decider, "check" | "explain"> {
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
  /** For how many milliseconds the facts have been too old; negative while they are not. */
  overdueMs(): number;
  /** Notes the time that has passed; to be called each second or so. */
  tick(): void;
  /** Rises with each change of what {@link save} returns, but for the two numbers of its head. */
  readonly revision: number;
  save(): SavedFacts;
  /** Ends it: afterwards every check is refused. */
  close(): void;
}

/** A product or a customer, with what told it where that is to be saved. */
interface Held<T> {
  readonly value: T;
  readonly bytes: Uint8Array | undefined;
  /** Once something else holds: until when this is known to have held, by the trusted clock in epoch milliseconds. */
  heldUntilMs: number | undefined;
}

/** What {@link createWatchedFacts} needs. */
export interface WatchedFactsOptions {
  readonly clock: TrustedClock;
  /** The customers watched; undefined: all of the tenant. */
  readonly customerIds?: readonly string[] | undefined;
  /** What was saved before a restart. */
  readonly saved?: SavedFacts | undefined;
  /** Whether {@link WatchedFacts.save} will be called: it costs each customer the bytes that told it. */
  readonly saves?: boolean;
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
  readonly #clock: TrustedClock;
  readonly #decider: Decider;
  readonly #watched: ReadonlySet<string> | undefined;
  readonly #saves: boolean;
  readonly #customers = new Map<string, Held<Snapshot>>();
  readonly #usage = new Map<string, Held<Usage>>();
  readonly #products = new Map<string, Held<Catalog>>();
  readonly #catalogs = new Map<string, Catalog>();
  /** What was told since the last `reset`; undefined: there is no first state on its way. */
  #toldAnew: { readonly customers: Set<string>; readonly products: Set<string> } | undefined;

  #closed = false;

  constructor({ clock, customerIds, saved, saves = false, steadyMs }: WatchedFactsOptions) {
    this.#clock = clock;
    this.#watched = customerIds && new Set(customerIds);
    this.#saves = saves;
    this.#decider = createDecider({
      clock,
      factsOf: (customerId, nowMs) => this.#factsOf(customerId, nowMs),
      whyNoFacts: (customerId) => this.#whyNoFacts(customerId),
      steadyMs,
    });
    this.check = this.#decider.check;
    this.explain = this.#decider.explain;
    if (saved === undefined) return;
    for (const bytes of saved.messages) this.#take(fromBinary(WatchEntitlementsResponseSchema, bytes), bytes);
    this.resumeToken = saved.resumeToken;
    this.factsAsOfMs = saved.factsAsOfMs;
    this.complete = true;
  }

  get resetting(): boolean {
    return this.#toldAnew !== undefined;
  }

  apply(message: WatchEntitlementsResponse, askedAt: Moment): void {
    const { content } = message;
    switch (content.case) {
      case "reset":
        this.#toldAnew = { customers: new Set(), products: new Set() };
        break;
      case "synchronized":
        this.#calibrate(content.value, askedAt);
        this.#synchronized(content.value);
        break;
      case "heartbeat":
        this.#calibrate(content.value, askedAt);
        if (this.complete && this.#toldAnew === undefined) this.#vouch(content.value, this.factsAsOfMs);
        break;
      default:
        this.#take(message, undefined);
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
    const held = [...this.#products.values(), ...this.#customers.values(), ...this.#usage.values()];
    return {
      resumeToken: this.resumeToken,
      factsAsOfMs: this.factsAsOfMs,
      messages: held.flatMap(({ bytes }) => bytes ?? []),
    };
  }

  close(): void {
    this.#closed = true;
    this.#decider.forgetAll();
  }

  /** Takes over what a message tells, unless a higher version is known: replicas may lag behind each other. */
  #take(message: WatchEntitlementsResponse, bytes: Uint8Array | undefined): void {
    const { content } = message;
    if (content.case === "snapshot") {
      const snapshot = toSnapshot(content.value);
      const { customerId, version } = snapshot;
      this.#toldAnew?.customers.add(customerId);
      if (version === 0n) {
        this.#drop(customerId);
        return;
      }
      const held = this.#customers.get(customerId);
      if (held !== undefined && held.value.version >= version) return;
      if (held === undefined && this.#customers.size >= MAX_CUSTOMERS) throw tooManyCustomers();
      if (held !== undefined) held.heldUntilMs = this.factsAsOfMs;
      const kept = { value: snapshot, bytes: this.#bytesOf(message, bytes), heldUntilMs: undefined };
      this.#customers.set(customerId, kept);
      this.#decider.forget(customerId);
      this.revision += 1;
    } else if (content.case === "catalog") {
      const catalog = toCatalog(content.value);
      this.#toldAnew?.products.add(catalog.product);
      if ((this.#catalogs.get(catalog.product)?.version ?? -1n) >= catalog.version) return;
      const kept = { value: catalog, bytes: this.#bytesOf(message, bytes), heldUntilMs: undefined };
      this.#products.set(catalog.product, kept);
      this.#catalogs.set(catalog.product, catalog);
      this.#decider.forgetAll();
      this.revision += 1;
    } else if (content.case === "usage" && content.value.asOf !== undefined) {
      const { customerId, asOf } = content.value;
      // Of a customer that there is not, nothing is held, so that customers bound what is.
      if (!this.#customers.has(customerId)) return;
      const kept = {
        value: toUsage(content.value, toMs(asOf)),
        bytes: this.#bytesOf(message, bytes),
        heldUntilMs: undefined,
      };
      this.#usage.set(customerId, kept);
      this.#decider.forget(customerId);
      this.revision += 1;
    }
  }

  #bytesOf({ content }: WatchEntitlementsResponse, bytes: Uint8Array | undefined): Uint8Array | undefined {
    if (!this.#saves) return undefined;
    return bytes ?? toBinary(WatchEntitlementsResponseSchema, create(WatchEntitlementsResponseSchema, { content }));
  }

  #drop(customerId: string): void {
    const held = this.#customers.get(customerId);
    if (held === undefined) return;
    held.heldUntilMs = this.factsAsOfMs;
    this.#customers.delete(customerId);
    this.#usage.delete(customerId);
    this.#decider.forget(customerId);
    this.revision += 1;
  }

  /** The first state is complete, or what was missed is: what a reset has not told again is no more. */
  #synchronized(heartbeat: WatchHeartbeat): void {
    const anew = this.#toldAnew;
    if (anew !== undefined) {
      for (const customerId of this.#customers.keys()) if (!anew.customers.has(customerId)) this.#drop(customerId);
      for (const product of this.#products.keys()) if (!anew.products.has(product)) this.#dropProduct(product);
      this.#toldAnew = undefined;
      this.revision += 1;
    }
    const first = !this.complete;
    this.complete = true;
    // After a reset another instance speaks for all that is known, and may know less of late.
    this.#vouch(heartbeat, anew === undefined ? this.factsAsOfMs : Number.NEGATIVE_INFINITY);
    if (first || anew !== undefined) this.#decider.forgetAll();
  }

  #dropProduct(product: string): void {
    this.#products.delete(product);
    this.#catalogs.delete(product);
  }

  #vouch({ factsAsOf }: WatchHeartbeat, atLeastMs: number): void {
    if (factsAsOf === undefined) return;
    const wereOverdue = this.overdueMs() >= 0;
    this.factsAsOfMs = Math.max(atLeastMs, toMs(factsAsOf));
    if (wereOverdue) this.#decider.forgetAll();
  }

  #calibrate({ sentAt }: WatchHeartbeat, askedAt: Moment): void {
    if (sentAt === undefined) return;
    if (this.#clock.calibrate(askedAt, toMs(sentAt))) this.#decider.forgetAll();
  }

  #factsOf(customerId: string, nowMs: number): KnownFacts | undefined {
    if (this.#closed) throw clientClosed();
    if (!this.complete || this.#watched?.has(customerId) === false) return undefined;
    const overdueMs = nowMs - this.factsAsOfMs - FENCE_MS;
    const held = this.#customers.get(customerId);
    // Of a customer that there is not, a change would not be seen here: its verdicts are as old as when they were made.
    const unknownAsOfMs = held === undefined ? this.factsAsOfMs : undefined;
    return {
      snapshot: held?.value,
      catalogs: this.#catalogs,
      usage: this.#usage.get(customerId)?.value,
      overdueMs,
      holdsUntilMs: overdueMs < 0 ? this.factsAsOfMs + FENCE_MS : undefined,
      stalenessMs: (atMs) => Math.max(0, atMs - (held?.heldUntilMs ?? unknownAsOfMs ?? this.factsAsOfMs)),
    };
  }

  #whyNoFacts(customerId: string): string {
    return this.complete
      ? `Customer ${JSON.stringify(customerId)} is not among the customers that this client watches (customerIds).`
      : "Nothing is known yet: this client has not been ready since it was created.";
  }
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

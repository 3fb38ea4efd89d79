import type { MessageInitShape } from "@bufbuild/protobuf";
import type { EntitlementSnapshot } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import type { WatchEntitlementsResponseSchema } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { catalogToWire } from "@licet/decide/to-wire";
import type { Context } from "../context.ts";
import type { FoundChanges } from "./changes.ts";
import { resumeTokensOf, type Told, type WatchScope } from "./resume-token.ts";
import { createUsageTelling, type UsageProgress, vouchable } from "./usage-telling.ts";
import type { Watch } from "./watches.ts";

type Content = NonNullable<MessageInitShape<typeof WatchEntitlementsResponseSchema>["content"]>;

/** One message on its way: a heartbeat, or what has a form of its own. */
export type Message = Heartbeat | Fact;

/** What a message brings that is no heartbeat. */
export interface Fact {
  readonly resumeToken: string;
  readonly content: Extract<Content, { readonly case: "reset" | "snapshot" | "catalog" | "usage" }>;
}

/** A message that vouches for what was told before it. */
export interface Heartbeat {
  readonly kind: "synchronized" | "heartbeat";
  readonly resumeToken: string;
  readonly beat: Beat;
}

/** What a heartbeat says; see WatchHeartbeat in the contract. In whole epoch milliseconds. */
export interface Beat {
  readonly factsAsOfMs: number;
  readonly sentAtMs: number;
  readonly usageAsOfMs: number | undefined;
}

/** A watch while it lasts. */
export interface Session {
  readonly ctx: Context;
  readonly watch: Watch;
  readonly scope: WatchScope;
  readonly signal: AbortSignal;
}

/** Tells a watcher everything, turn by turn. Between turns it holds nothing but how far the watcher is. */
export interface Telling {
  /**
   * What there is to tell now, in its order; the next turn comes when all of it was taken.
   *
   * @throws {ServiceError} as {@link Watch.read} and {@link States}.
   */
  turn(): Iterable<Message> | AsyncIterable<Message>;
  /** Whether there is more to tell already; otherwise the watch is to wait. */
  readonly behind: boolean;
}

/** How far a caller is: everything before the place, and everything committed before the time, was told. */
interface Progress {
  readonly place: number;
  readonly asOfMs: number;
  /** Undefined: what customers have used is to be told from the beginning. */
  readonly usage: UsageProgress | undefined;
}

/** Begins to tell everything from where the caller is, and from the beginning where that is not known, then or later. */
export function createTelling(session: Session, told: Told | undefined): Telling {
  let progress = resume(session.ctx, told);
  let following: Following | undefined;
  async function* begin(): AsyncGenerator<Message, void> {
    const token = progress && resumeTokensOf(session.scope)({ ...progress, usageAsOfMs: progress.usage?.asOfMs });
    const from = progress ?? (yield* tellAll(session));
    progress = undefined;
    if (token !== undefined) yield* tellCatalogs(session, token);
    following = new Following(session, from, token ?? "");
  }
  return {
    turn() {
      const messages = following?.turn();
      if (messages !== undefined) return messages;
      following = undefined;
      return begin();
    },
    get behind() {
      return following === undefined || following.behind;
    },
  };
}

/** The place of a caller who was told everything before some times; undefined: it is to begin from the beginning. */
function resume(ctx: Context, told: Told | undefined): Progress | undefined {
  // From a future that never was: the database has gone back to a backup, or the token was made up.
  if (told === undefined || told.asOfMs > ctx.licensingClock.latestMs()) return undefined;
  const place = ctx.watches.changes.since(told.asOfMs);
  return place === undefined ? undefined : { place, asOfMs: told.asOfMs, usage: resumeUsage(ctx, told.usageAsOfMs) };
}

function resumeUsage({ watches, licensingClock }: Context, asOfMs: number | undefined): UsageProgress | undefined {
  if (asOfMs === undefined || asOfMs > licensingClock.latestMs()) return undefined;
  const place = watches.usageChanges.since(asOfMs);
  return place === undefined ? undefined : { place, asOfMs };
}

/** Without tokens: whoever is cut off before it knows all begins from the beginning again. */
async function* tellAll(session: Session): AsyncGenerator<Message, Progress> {
  const { ctx, scope, signal } = session;
  yield toMessage("", { case: "reset", value: {} });
  const usage = usageNow(ctx);
  const { place, asOfMs, states } = await ctx.states.begin(scope, signal);
  yield* tellCatalogs(session, "");
  yield* tellStates(session, states, "");
  return { place, asOfMs, usage: usage && vouchable(ctx.usage, usage) };
}

/** How far a caller is who is told from now on what each customer has used; undefined: that is not known yet. */
function usageNow({ usage, watches }: Context): UsageProgress | undefined {
  if (usage.stalenessMs() === undefined) return undefined;
  return { place: watches.usageChanges.end, asOfMs: usage.asOfMs() };
}

/** Tells all products: heartbeats don't vouch for what changes there, so whoever comes back hears them again. */
function* tellCatalogs({ ctx, scope }: Session, token: string): Generator<Message> {
  for (const catalog of ctx.catalogs.of(scope.tenant).values()) {
    yield toMessage(token, { case: "catalog", value: catalogToWire(catalog) });
  }
}

/** Tells what changes from a place on, and heartbeats behind it. */
class Following {
  readonly #session: Session;
  readonly #toToken: (told: Told) => string;
  readonly #usage: ReturnType<typeof createUsageTelling>;
  #place: number;
  #asOfMs: number;
  #token: string;
  #synchronized = false;
  #hasMore = true;

  constructor(session: Session, { place, asOfMs, usage }: Progress, token: string) {
    this.#session = session;
    this.#toToken = resumeTokensOf(session.scope);
    this.#usage = createUsageTelling(session.ctx, session.watch, session.scope, usage);
    this.#place = place;
    this.#asOfMs = asOfMs;
    this.#token = token;
  }

  get behind(): boolean {
    return this.#hasMore || !this.#synchronized || this.#usage.behind;
  }

  /** See {@link Telling.turn}; undefined when the place is not remembered any more. */
  turn(): Iterable<Message> | AsyncIterable<Message> | undefined {
    const { ctx, watch } = this.#session;
    const found = watch.read(this.#place);
    if (found === undefined) return undefined;
    this.#place = found.next;
    this.#hasMore = found.next !== ctx.watches.changes.end;
    // In the same turn: whatever was committed before this time has been applied, and was just read.
    const vouchedMs = this.#hasMore ? undefined : ctx.freshness.asOfMs();
    const isDue = this.#synchronized ? watch.takeBeat() : vouchedMs !== undefined;
    const used = isDue || this.#usage.behind ? this.#usage.next() : nobody;
    if (found.customers.size > 0 || found.products.size > 0 || used === undefined || used.size > 0) {
      return this.#tell(found, used, vouchedMs, isDue);
    }
    // Of most watches in most turns, of which there are many a second: no generator for it.
    return this.#vouch(vouchedMs, isDue);
  }

  async *#tell(
    { products, customers }: FoundChanges,
    used: ReadonlySet<string> | undefined,
    vouchedMs: number | undefined,
    isDue: boolean,
  ): AsyncGenerator<Message, void> {
    const { ctx, scope } = this.#session;
    const token = this.#token;
    const catalogs = ctx.catalogs.of(scope.tenant);
    for (const product of products) {
      const catalog = catalogs.get(product);
      if (catalog !== undefined) yield toMessage(token, { case: "catalog", value: catalogToWire(catalog) });
    }
    yield* tellStates(this.#session, ctx.states.of(scope.tenant, customers), token);
    for (const customerId of used ?? (await this.#usage.anew())) {
      const value = ctx.usage.told(scope.tenant, customerId);
      if (value !== undefined) yield toMessage(token, { case: "usage", value });
    }
    this.#usage.told();
    yield* this.#vouch(vouchedMs, isDue);
  }

  /** Makes the token that stands for everything that was told, and says so where a heartbeat is due. */
  #vouch(vouchedMs: number | undefined, isDue: boolean): readonly Message[] {
    const usageAsOfMs = this.#usage.asOfMs;
    if (vouchedMs !== undefined && (isDue || vouchedMs > this.#asOfMs)) {
      this.#asOfMs = Math.max(this.#asOfMs, vouchedMs);
      this.#token = this.#toToken({ asOfMs: this.#asOfMs, usageAsOfMs });
    }
    if (!isDue) return nothing;
    // Rounded up, so that facts never look younger than they are.
    const sentAtMs = Math.ceil(this.#session.ctx.licensingClock.latestMs());
    const beat = { factsAsOfMs: this.#asOfMs, sentAtMs, usageAsOfMs };
    const kind = this.#synchronized ? "heartbeat" : "synchronized";
    this.#synchronized = true;
    return [{ kind, resumeToken: this.#token, beat }];
  }
}

const nobody: ReadonlySet<string> = new Set();
const nothing: readonly Message[] = [];

/**
 * Tells states of customers, and behind each what the customer has used: the two come through different topics, and watchers
 * hold no usage of a customer of whom they have not heard.
 */
async function* tellStates(
  { ctx, scope }: Session,
  states: AsyncIterable<EntitlementSnapshot>,
  token: string,
): AsyncGenerator<Message, void> {
  for await (const value of states) {
    yield toMessage(token, { case: "snapshot", value });
    const usage = ctx.usage.told(scope.tenant, value.customerId);
    if (usage !== undefined) yield toMessage(token, { case: "usage", value: usage });
  }
}

function toMessage(resumeToken: string, content: Fact["content"]): Fact {
  return { resumeToken, content };
}

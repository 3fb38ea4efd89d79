import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { EntitlementSnapshot } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import type {
  ValidationService,
  WatchEntitlementsResponseSchema,
  WatchHeartbeatSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { catalogToWire } from "@licet/decide/to-wire";
import type { Handler } from "@licet/platform/rpc/handlers";
import { untilTaken } from "@licet/platform/rpc/until-taken";
import type { Context } from "../context.ts";
import { watcherTooSlow } from "../errors.ts";
import { decodeResumeToken, encodeResumeToken, type Told, type WatchScope } from "../watch/resume-token.ts";
import { createUsageTelling, type UsageProgress } from "../watch/usage-telling.ts";
import type { Watch } from "../watch/watches.ts";

type Content = NonNullable<MessageInitShape<typeof WatchEntitlementsResponseSchema>["content"]>;

/** One message on its way. */
interface Message {
  readonly resumeToken: string;
  readonly content: Extract<Content, { readonly case: string }>;
}

/**
 * Sends what is needed to decide elsewhere: the present state, or what has changed since the caller's token, and then what
 * changes. A watch is a place in the changes of this instance and reads the present state of what has changed, so a reader
 * that is slow, or one that was away, gets the last of several changes, and no watch holds a queue.
 */
export const watchEntitlements: Handler<typeof ValidationService, "watchEntitlements", Context> = async function* (
  ctx,
  call,
  request,
) {
  const { watches, metrics, licensingClock } = ctx;
  const scope = { tenant: call.tenant, customerIds: request.customerIds };
  const told = decodeResumeToken(request.resumeToken, scope);
  const watch = watches.open(scope);
  try {
    // By the time that the first message takes, and what it says, the caller can tell the time of licensing's database.
    let sentAt: Timestamp | undefined = toTimestamp(licensingClock.latestMs());
    for await (const message of tell({ ctx, watch, scope, signal: call.signal }, told)) {
      metrics.watchTold(message.content.case);
      yield* untilTaken(call, watches.limits.slowAfterMs, watcherTooSlow, { ...message, sentAt });
      sentAt = undefined;
    }
  } finally {
    watch.close();
  }
};

/** A watch while it lasts. */
interface Session {
  readonly ctx: Context;
  readonly watch: Watch;
  readonly scope: WatchScope;
  readonly signal: AbortSignal;
}

/** How far a caller is: everything before the place, and everything committed before the time, was told. */
interface Progress {
  readonly place: number;
  readonly asOfMs: number;
  /** Undefined: what customers have used is to be told from the beginning. */
  readonly usage: UsageProgress | undefined;
}

/** Tells everything from where the caller is, and from the beginning where that is not known, then or later. */
async function* tell(session: Session, told: Told | undefined): AsyncGenerator<Message> {
  let progress = resume(session.ctx, told);
  for (;;) {
    if (progress === undefined) {
      progress = yield* tellAll(session);
      yield* follow(session, progress, "");
    } else {
      const token = encodeResumeToken({ asOfMs: progress.asOfMs, usageAsOfMs: progress.usage?.asOfMs }, session.scope);
      yield* tellCatalogs(session, token);
      yield* follow(session, progress, token);
    }
    progress = undefined;
  }
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
  return { place, asOfMs, usage };
}

/** How far a caller is who is told from now on what each customer has used; undefined: that is not known yet. */
function usageNow({ usage, watches }: Context): UsageProgress | undefined {
  if (usage.stalenessMs() === undefined) return undefined;
  return { place: watches.usageChanges.end, asOfMs: usage.asOfMs() };
}

/** Tells all products: heartbeats don't vouch for what changes there, so whoever comes back hears them again. */
async function* tellCatalogs({ ctx, scope }: Session, token: string): AsyncGenerator<Message> {
  for (const catalog of ctx.catalogs.of(scope.tenant).values()) {
    yield toMessage(token, { case: "catalog", value: catalogToWire(catalog) });
  }
}

/** Tells what changes, and a heartbeat behind it each second. Returns when the place is not remembered any more. */
async function* follow(session: Session, from: Progress, tokenBefore: string): AsyncGenerator<Message, void> {
  const { ctx, watch, scope, signal } = session;
  const { changes, limits } = ctx.watches;
  const usage = createUsageTelling(ctx, watch, scope, from.usage);
  let { place, asOfMs } = from;
  let token = tokenBefore;
  let beatAtMs: number | undefined;
  for (;;) {
    signal.throwIfAborted();
    const found = watch.read(place);
    if (found === undefined) return;
    // In the same turn: whatever was committed before this time has been applied, and was just read.
    const vouchedMs = found.next === changes.end ? ctx.freshness.asOfMs() : undefined;
    yield* tellFound(session, found, token);
    place = found.next;
    const isDue = beatAtMs === undefined ? vouchedMs !== undefined : performance.now() >= beatAtMs;
    if (isDue || usage.behind) {
      for await (const value of usage.some()) yield toMessage(token, { case: "usage", value });
    }
    if (vouchedMs !== undefined && (isDue || vouchedMs > asOfMs)) {
      asOfMs = Math.max(asOfMs, vouchedMs);
      token = encodeResumeToken({ asOfMs, usageAsOfMs: usage.asOfMs }, scope);
    }
    if (isDue) {
      const value = toHeartbeat(asOfMs, ctx.licensingClock.latestMs(), usage.asOfMs);
      yield toMessage(token, beatAtMs === undefined ? { case: "synchronized", value } : { case: "heartbeat", value });
      beatAtMs = performance.now() + limits.heartbeatMs;
    }
    if (vouchedMs !== undefined && beatAtMs !== undefined && !usage.behind) {
      await watch.wait(Math.max(0, beatAtMs - performance.now()), signal);
    }
  }
}

/** Tells the present state of what has changed. */
async function* tellFound(
  session: Session,
  { products, customers }: { readonly products: Iterable<string>; readonly customers: Iterable<string> },
  token: string,
): AsyncGenerator<Message> {
  const { ctx, scope } = session;
  const catalogs = ctx.catalogs.of(scope.tenant);
  for (const product of products) {
    const catalog = catalogs.get(product);
    if (catalog !== undefined) yield toMessage(token, { case: "catalog", value: catalogToWire(catalog) });
  }
  yield* tellStates(session, ctx.states.of(scope.tenant, customers), token);
}

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

function toMessage(resumeToken: string, content: Message["content"]): Message {
  return { resumeToken, content };
}

function toHeartbeat(
  asOfMs: number,
  latestMs: number,
  usageAsOfMs: number | undefined,
): MessageInitShape<typeof WatchHeartbeatSchema> {
  return {
    factsAsOf: timestampFromMs(asOfMs),
    sentAt: toTimestamp(latestMs),
    usageAsOf: usageAsOfMs === undefined ? undefined : timestampFromMs(usageAsOfMs),
  };
}

/** Rounded up, so that facts never look younger than they are. */
function toTimestamp(ms: number): Timestamp {
  return timestampFromMs(Math.ceil(ms));
}

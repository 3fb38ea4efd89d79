import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
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
import { decodeResumeToken, encodeResumeToken, type WatchScope } from "../watch/resume-token.ts";
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
  const knownAsOfMs = decodeResumeToken(request.resumeToken, scope);
  const watch = watches.open(scope);
  try {
    // By the time that the first message takes, and what it says, the caller can tell the time of licensing's database.
    let sentAt: Timestamp | undefined = toTimestamp(licensingClock.latestMs());
    for await (const message of tell({ ctx, watch, scope, signal: call.signal }, knownAsOfMs)) {
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
}

/** Tells everything from where the caller is, and from the beginning where that is not known, then or later. */
async function* tell(session: Session, knownAsOfMs: number | undefined): AsyncGenerator<Message> {
  let progress = resume(session.ctx, knownAsOfMs);
  for (;;) {
    if (progress === undefined) {
      progress = yield* tellAll(session);
      yield* follow(session, progress, "");
    } else {
      const token = encodeResumeToken(progress.asOfMs, session.scope);
      yield* tellCatalogs(session, token);
      yield* follow(session, progress, token);
    }
    progress = undefined;
  }
}

/** The place of a caller who was told everything committed before a time; undefined: it is to begin from the beginning. */
function resume({ watches, licensingClock }: Context, asOfMs: number | undefined): Progress | undefined {
  // From a future that never was: the database has gone back to a backup, or the token was made up.
  if (asOfMs === undefined || asOfMs > licensingClock.latestMs()) return undefined;
  const place = watches.changes.since(asOfMs);
  return place === undefined ? undefined : { place, asOfMs };
}

/** Without tokens: whoever is cut off before it knows all begins from the beginning again. */
async function* tellAll(session: Session): AsyncGenerator<Message, Progress> {
  const { ctx, scope, signal } = session;
  yield toMessage("", { case: "reset", value: {} });
  const { place, asOfMs, states } = await ctx.states.begin(scope, signal);
  yield* tellCatalogs(session, "");
  for await (const value of states) yield toMessage("", { case: "snapshot", value });
  return { place, asOfMs };
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
    if (vouchedMs !== undefined && (vouchedMs > asOfMs || beatAtMs === undefined)) {
      asOfMs = Math.max(asOfMs, vouchedMs);
      token = encodeResumeToken(asOfMs, scope);
    }
    const nowMs = performance.now();
    if (beatAtMs === undefined ? vouchedMs !== undefined : nowMs >= beatAtMs) {
      const value = toHeartbeat(asOfMs, ctx.licensingClock.latestMs());
      yield toMessage(token, beatAtMs === undefined ? { case: "synchronized", value } : { case: "heartbeat", value });
      beatAtMs = nowMs + limits.heartbeatMs;
    }
    if (vouchedMs !== undefined && beatAtMs !== undefined) {
      await watch.wait(Math.max(0, beatAtMs - performance.now()), signal);
    }
  }
}

/** Tells the present state of what has changed. */
async function* tellFound(
  { ctx, scope: { tenant } }: Session,
  { products, customers }: { readonly products: Iterable<string>; readonly customers: Iterable<string> },
  token: string,
): AsyncGenerator<Message> {
  const catalogs = ctx.catalogs.of(tenant);
  for (const product of products) {
    const catalog = catalogs.get(product);
    if (catalog !== undefined) yield toMessage(token, { case: "catalog", value: catalogToWire(catalog) });
  }
  for await (const value of ctx.states.of(tenant, customers)) yield toMessage(token, { case: "snapshot", value });
}

function toMessage(resumeToken: string, content: Message["content"]): Message {
  return { resumeToken, content };
}

function toHeartbeat(asOfMs: number, latestMs: number): MessageInitShape<typeof WatchHeartbeatSchema> {
  return { factsAsOf: timestampFromMs(asOfMs), sentAt: toTimestamp(latestMs) };
}

/** Rounded up, so that facts never look younger than they are. */
function toTimestamp(ms: number): Timestamp {
  return timestampFromMs(Math.ceil(ms));
}

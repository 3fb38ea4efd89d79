import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ValidationService,
  WatchEntitlementsResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { encoded } from "@licet/platform/rpc/encoded";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { watcherTooSlow } from "../errors.ts";
import { decodeResumeToken } from "../watch/resume-token.ts";
import { createTelling } from "../watch/telling.ts";
import { encodeHeartbeat } from "./heartbeat.ts";

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
  const { signal } = call;
  const scope = { tenant: call.tenant, customerIds: request.customerIds };
  const told = decodeResumeToken(request.resumeToken, scope);
  const watch = watches.open(scope, signal);
  call.cutOff({ slowAfterMs: watches.limits.slowAfterMs, tooSlow: watcherTooSlow });
  try {
    const telling = createTelling({ ctx, watch, scope, signal }, told);
    // By the time that the first message takes, and what it says, the caller can tell the time of licensing's database.
    let sentAtMs: number | undefined = Math.ceil(licensingClock.latestMs());
    for (;;) {
      signal.throwIfAborted();
      for await (const message of telling.turn()) {
        metrics.watchTold("beat" in message ? message.kind : message.content.case);
        yield "beat" in message
          ? encoded(WatchEntitlementsResponseSchema, encodeHeartbeat(message, sentAtMs))
          : { ...message, sentAt: sentAtMs === undefined ? undefined : timestampFromMs(sentAtMs) };
        sentAtMs = undefined;
      }
      if (!telling.behind) await watch.wait();
    }
  } finally {
    watch.close();
  }
};

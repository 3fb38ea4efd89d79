import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicensingService,
  type SubscribeLicenseEventsRequest,
  type SubscribeLicenseEventsResponseSchema,
  SubscriptionStart,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { type PublishedEvent, readPublished, readTail, type TailState } from "@licet/platform/events/published";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { decodeResumeToken, encodeResumeToken } from "../domain/resume-token.ts";
import { eventTypes } from "../events.ts";
import { tooSlow } from "../subscriptions.ts";

type Message = MessageInitShape<typeof SubscribeLicenseEventsResponseSchema>;

/**
 * Sends the tenant's published events in the order of their positions, page by page, and a heartbeat when nothing else
 * was sent for a while. One page is in memory at a time, and the next one is read when the reader has taken it.
 */
export const subscribeLicenseEvents: Handler<typeof LicensingService, "subscribeLicenseEvents", Context> =
  async function* (ctx, call, request) {
    const { db, limits, open } = ctx.subscriptions;
    const filter = filterOf(request);
    const follower = open(call.tenant);
    call.cutOff({ slowAfterMs: limits.slowAfterMs, tooSlow });
    try {
      const tail = await inTenant(db, call.tenant, (tx) => readTail(tx, call.tenant), { readOnly: true });
      let position = beginning(request, call.tenant, tail);
      yield heartbeat(call.tenant, position, tail);
      let sentAt = performance.now();
      for (;;) {
        const leftMs = Math.max(0, Math.ceil(sentAt + limits.heartbeatMs - performance.now()));
        const due = AbortSignal.any([call.signal, AbortSignal.timeout(leftMs)]);
        const seen = await follower.next(position, due);
        call.signal.throwIfAborted();
        if (seen !== undefined && seen.last > position) {
          const options = { ...filter, after: position, upTo: seen.last };
          const page = await inTenant(db, call.tenant, (tx) => readPublished(tx, call.tenant, options), {
            readOnly: true,
          });
          for (const event of page.events) yield toMessage(call.tenant, event);
          position = page.next;
          if (page.events.length > 0) sentAt = performance.now();
        }
        if (performance.now() - sentAt >= limits.heartbeatMs) {
          yield heartbeat(call.tenant, position, seen);
          sentAt = performance.now();
        }
      }
    } finally {
      follower.close();
    }
  };

/** The position behind which a subscription begins. */
function beginning(request: SubscribeLicenseEventsRequest, tenant: string, { last }: TailState): bigint {
  if (request.resumeToken !== "") return decodeResumeToken(request.resumeToken, tenant, last);
  return request.start === SubscriptionStart.EARLIEST ? 0n : last;
}

function filterOf({ causes, customerId }: SubscribeLicenseEventsRequest) {
  const wanted = new Set<string>(causes.map((cause) => eventTypes[cause as keyof typeof eventTypes]));
  const types = Object.values(eventTypes).filter((type) => wanted.size === 0 || wanted.has(type));
  return { types, stream: customerId === "" ? undefined : `customer/${customerId}` };
}

/** Says how far the subscription is, and as of when, unless there is more to be sent already. */
function heartbeat(tenant: string, position: bigint, tail: TailState | undefined): Message {
  const current = tail !== undefined && tail.last <= position;
  return {
    resumeToken: encodeResumeToken(tenant, position),
    content: {
      case: "heartbeat",
      value: current ? { databaseTime: timestampFromDate(tail.asOf) } : {},
    },
  };
}

function toMessage(tenant: string, event: PublishedEvent): Message {
  return {
    resumeToken: encodeResumeToken(tenant, event.position),
    content: {
      case: "event",
      value: {
        eventId: event.eventId,
        type: event.type,
        time: timestampFromDate(event.createdAt),
        change: fromBinary(LicenseChangedSchema, event.payload),
      },
    },
  };
}

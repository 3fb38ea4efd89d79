import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, pageTokenDate, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { toUsageEventMessage } from "../events.ts";
import { listQuarantined, type QuarantineKey } from "../store/quarantine.ts";

/** Lists the events that contradict counted ones. */
export const listQuarantinedEvents: Handler<typeof UsageMeteringService, "listQuarantinedEvents", Context> = async (
  ctx,
  call,
  request,
) => {
  const after = toKey(decodePageToken(request.pageToken, 4));
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await inTenant(ctx.db, call.tenant, (tx) => listQuarantined(tx, call.tenant, after, pageSize + 1), {
    readOnly: true,
  });
  const { items, nextPageToken } = toPage(rows, pageSize, ({ event, payloadHash, quarantinedAt }) => [
    quarantinedAt.toISOString(),
    event.source,
    event.id,
    Buffer.from(payloadHash).toString("hex"),
  ]);
  return {
    events: items.map(({ event, counted, quarantinedAt }) => ({
      event: toUsageEventMessage(event),
      countedEvent: toUsageEventMessage(counted),
      actor: event.actor,
      acceptedAt: timestampFromDate(event.acceptedAt),
      quarantinedAt: timestampFromDate(quarantinedAt),
    })),
    nextPageToken,
  };
};

function toKey(parts: readonly string[] | undefined): QuarantineKey | undefined {
  if (!parts) return undefined;
  const [quarantinedAt = "", source = "", eventId = "", hash = ""] = parts;
  return { quarantinedAt: pageTokenDate(quarantinedAt), source, eventId, payloadHash: Buffer.from(hash, "hex") };
}

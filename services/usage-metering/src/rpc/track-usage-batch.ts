import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { toTrackedRecord } from "../events.ts";
import { accept } from "./accept.ts";

/** Takes several events, all or none: answers once they are durable. */
export const trackUsageBatch: Handler<typeof UsageMeteringService, "trackUsageBatch", Context> = async (
  ctx,
  call,
  request,
) => {
  const acceptedAt = ctx.now();
  const records = request.events.map((event, index) => toTrackedRecord(`events[${index}]`, event, call, acceptedAt));
  await accept(ctx, call, records);
  return { accepted: records.length, acceptedAt: timestampFromDate(acceptedAt) };
};

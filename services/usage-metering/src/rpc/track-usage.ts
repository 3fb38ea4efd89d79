import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { toTrackedRecord } from "../events.ts";

/** Takes one event: answers once it is durable in the log. */
export const trackUsage: Handler<typeof UsageMeteringService, "trackUsage", Context> = async (ctx, call, request) => {
  const acceptedAt = ctx.now();
  await ctx.bus.publish([toTrackedRecord("event", request.event, call, acceptedAt)]);
  ctx.metrics.accepted.add(1);
  return { acceptedAt: timestampFromDate(acceptedAt) };
};

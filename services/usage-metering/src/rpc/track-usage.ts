import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { toTrackedRecord } from "../events.ts";
import { accept } from "./accept.ts";

/** Takes one event: answers once it is durable. */
export const trackUsage: Handler<typeof UsageMeteringService, "trackUsage", Context> = async (ctx, call, request) => {
  const acceptedAt = ctx.now();
  await accept(ctx, call, [toTrackedRecord("event", request.event, call, acceptedAt)]);
  return { acceptedAt: timestampFromDate(acceptedAt) };
};

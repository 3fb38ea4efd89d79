import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { type Handlers, implement, type ServiceBinding } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getUsageStats } from "./get-usage-stats.ts";
import { decodeTrackUsage, decodeTrackUsageBatch } from "./hand-decoder.ts";
import { listQuarantinedEvents } from "./list-quarantined-events.ts";
import { trackUsage } from "./track-usage.ts";
import { trackUsageBatch } from "./track-usage-batch.ts";

const usage: Handlers<typeof UsageMeteringService, Context> = {
  trackUsage,
  trackUsageBatch,
  getUsageStats,
  listQuarantinedEvents,
};

/** All services of usage metering, bound to their context. */
export function bindServices(ctx: Context): ServiceBinding[] {
  const decoders = { trackUsage: decodeTrackUsage, trackUsageBatch: decodeTrackUsageBatch };
  return [{ ...implement(UsageMeteringService, ctx, usage), shortcuts: { decoders } }];
}

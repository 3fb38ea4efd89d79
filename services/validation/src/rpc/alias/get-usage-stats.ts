import type { LicensingService } from "@licet/contracts/licensing/licensing_service_pb";
import { UsageGranularity } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import { asCaller } from "../../clients/as-caller.ts";
import type { AliasContext } from "./context.ts";
import { forwardingFailed, meteringUnknown } from "./errors.ts";

/** Usage metering's GetUsageStats without its buckets, in the words of the first plan. */
export const getUsageStats: Handler<typeof LicensingService, "getUsageStats", AliasContext> = async (
  ctx,
  call,
  { customerId, metric, feature, licenseId, startTime, endTime },
) => {
  const { usage } = ctx.clients;
  if (usage === undefined) throw meteringUnknown(call.name);
  const question = { customerId, metric, feature, licenseId, startTime, endTime };
  // Of the buckets, which this answer leaves out, as few as may be.
  const fewest = { granularity: UsageGranularity.TOTAL, pageSize: 1 };
  const reply = await usage.getUsageStats({ ...question, ...fewest }, asCaller(call)).catch((error: unknown) => {
    throw forwardingFailed("usage-metering", error);
  });
  return {
    totals: reply.totals.map(({ metric, quantity, events }) => ({ metric, quantity, events })),
    startTime: reply.startTime,
    endTime: reply.endTime,
  };
};

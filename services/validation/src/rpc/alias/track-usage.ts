import type { LicensingService } from "@licet/contracts/licensing/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import { asCaller } from "../../clients/as-caller.ts";
import type { AliasContext } from "./context.ts";
import { toUsageEvent, trackedFields } from "./convert.ts";
import { forwardingFailed, meteringUnknown } from "./errors.ts";

/** Usage metering's TrackUsage, in the words of the first plan. */
export const trackUsage: Handler<typeof LicensingService, "trackUsage", AliasContext> = async (ctx, call, request) => {
  const { usage } = ctx.clients;
  if (usage === undefined) throw meteringUnknown(call.name);
  const event = toUsageEvent(request);
  const { acceptedAt } = await usage.trackUsage({ event }, asCaller(call)).catch((error: unknown) => {
    throw forwardingFailed("usage-metering", error, trackedFields);
  });
  return { accepted: true, acceptedAt };
};

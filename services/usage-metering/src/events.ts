import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { UsageTracked } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { UsageLevelsSchema, UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { UsageEvent as UsageEventMessage, UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { OutgoingRecord } from "@licet/platform/events/bus";
import { toRecord } from "@licet/platform/events/cloudevent";
import type { Call } from "@licet/platform/rpc/call";
import { currentTraceparent } from "@licet/platform/telemetry";
import { occurrence, type UsageEvent } from "./domain/event.ts";
import { presentLevel } from "./domain/level.ts";
import type { CustomerLevels } from "./store/levels.ts";

/**
 * The record of an accepted event.
 *
 * @param field - the event's field in the request, for the errors
 * @throws ServiceError INVALID_ARGUMENT when the event is absent or its time of occurrence is out of range
 */
export function toTrackedRecord(
  field: string,
  event: UsageEventMessage | undefined,
  call: Call,
  acceptedAt: Date,
): OutgoingRecord {
  if (!event) throw invalidArgument(field, "is required");
  const said = event.occurredAt && timestampDate(event.occurredAt);
  const occurredAt = occurrence(`${field}.occurred_at`, said, acceptedAt);
  return toRecord({
    schema: UsageTrackedSchema,
    message: {
      tenantId: call.tenant,
      // A UUID may come in either case; it is one license.
      event: { ...event, licenseId: event.licenseId.toLowerCase(), occurredAt: timestampFromDate(occurredAt) },
      acceptedAt: timestampFromDate(acceptedAt),
      actor: call.credential.id,
    },
    id: event.id,
    source: `licet/usage/${call.tenant}/${event.source}`,
    type: "licet.usage.tracked.v1",
    subject: `customer/${event.customerId}`,
    key: `${call.tenant}/${event.customerId}`,
    time: occurredAt,
    traceparent: currentTraceparent(),
  });
}

/** An accepted event out of its record, or undefined when a part is missing that acceptance always sets. */
export function fromTracked(message: UsageTracked): UsageEvent | undefined {
  const { tenantId, event, acceptedAt, actor } = message;
  if (tenantId === "" || !event?.occurredAt || !acceptedAt) return undefined;
  return {
    tenant: tenantId,
    source: event.source,
    id: event.id,
    customerId: event.customerId,
    licenseId: event.licenseId,
    metric: event.metric,
    feature: event.feature,
    action: event.action,
    quantity: event.quantity,
    dimensions: event.dimensions,
    occurredAt: timestampDate(event.occurredAt),
    acceptedAt: timestampDate(acceptedAt),
    actor,
  };
}

/** The record of what a customer has used by `now`. */
export function toLevelsRecord({ tenant, customerId, version, levels }: CustomerLevels, now: Date): OutgoingRecord {
  return toRecord({
    schema: UsageLevelsSchema,
    message: {
      tenantId: tenant,
      customerId,
      version,
      levels: levels.map((level) => {
        const { day, month } = presentLevel(level, now.getTime());
        const { metric, licenseId, lifetimeUsed } = level;
        return {
          metric,
          licenseId,
          dayStart: timestampFromMs(day.startMs),
          dayUsed: day.used,
          monthStart: timestampFromMs(month.startMs),
          monthUsed: month.used,
          lifetimeUsed,
        };
      }),
    },
    id: `${tenant}/${customerId}/${version}`,
    source: "licet/usage-metering",
    type: "licet.usage.levels.v1",
    subject: `customer/${customerId}`,
    key: `${tenant}/${customerId}`,
    time: now,
  });
}

/** The wire's form of an event. */
export function toUsageEventMessage(event: UsageEvent): MessageInitShape<typeof UsageEventSchema> {
  const { id, source, customerId, licenseId, metric, feature, action, quantity, dimensions, occurredAt } = event;
  return {
    id,
    source,
    customerId,
    licenseId,
    metric,
    feature,
    action,
    quantity,
    dimensions: { ...dimensions },
    occurredAt: timestampFromDate(occurredAt),
  };
}

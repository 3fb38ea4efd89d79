import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  LicenseSchema,
  LicenseSummarySchema,
  TrackUsageRequest,
} from "@licet/contracts/licensing/licensing_service_pb";
import type { License } from "@licet/contracts/licet/licensing/v1/license_pb";
import type { UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import type { LicenseSummary as DecidingLicense } from "@licet/contracts/licet/validation/v1/validation_service_pb";

/** The license that decided, as the first plan has it. */
export function fromSummary(license: DecidingLicense): MessageInitShape<typeof LicenseSummarySchema> {
  const { licenseId: id, type, product, plan, status, validUntil } = license;
  return { id, type, product, plan, status, validUntil };
}

/** A license as the first plan has it. */
export function fromLicense(license: License): MessageInitShape<typeof LicenseSchema> {
  const { licenseId: id, type, product, plan, status, validUntil, customerId, features, validFrom } = license;
  const { limits, metadata } = license;
  return { id, type, product, plan, status, validUntil, customerId, features, limits, validFrom, metadata };
}

/** The event that is to be tracked. It has no source, so that its id means the same event as UsageMeteringService's. */
export function toUsageEvent(request: TrackUsageRequest): MessageInitShape<typeof UsageEventSchema> {
  const { eventId: id, licenseId, customerId, feature, metric, action, quantity, metadata, timestamp } = request;
  return {
    id,
    licenseId,
    customerId,
    feature,
    metric: metric === "" ? feature : metric,
    action,
    quantity: quantity.toString(),
    dimensions: metadata,
    occurredAt: timestamp,
  };
}

/** What the fields of the event are called in the request that it came in; the rest of them is checked before. */
export const trackedFields: ReadonlyMap<string, string> = new Map([["event.occurred_at", "timestamp"]]);

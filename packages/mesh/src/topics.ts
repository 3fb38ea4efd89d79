import { ProductCatalogSchema } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CredentialChangedSchema } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { SeatChangedSchema } from "@licet/contracts/licet/licensing/v1/seat_events_pb";
import { UsageLevelsSchema, UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { TopicSpec } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";

/** Every topic that the contracts declare. Their dead-letter topics come by themselves. */
export const topics: readonly TopicSpec[] = [
  LicenseChangedSchema,
  EntitlementSnapshotSchema,
  ProductCatalogSchema,
  CredentialChangedSchema,
  SeatChangedSchema,
  UsageTrackedSchema,
  UsageLevelsSchema,
].map(topicOf);

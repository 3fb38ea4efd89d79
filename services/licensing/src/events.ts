import { fromBinary } from "@bufbuild/protobuf";
import { ProductCatalogSchema } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CredentialChangedSchema } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseChangeCause, LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { SeatChangeCause, SeatChangedSchema } from "@licet/contracts/licet/licensing/v1/seat_events_pb";
import type { OutgoingRecord } from "@licet/platform/events/bus";
import { topicOf, toRecord } from "@licet/platform/events/cloudevent";
import type { StoredEvent } from "@licet/platform/events/outbox";

/** The CloudEvents type of each cause, as the contract documents it. A cause without a type does not compile. */
export const eventTypes: Readonly<Record<Exclude<LicenseChangeCause, LicenseChangeCause.UNSPECIFIED>, string>> = {
  [LicenseChangeCause.CUSTOMER_CREATED]: "licet.customer.created.v1",
  [LicenseChangeCause.PROVISIONED]: "licet.license.provisioned.v1",
  [LicenseChangeCause.SUSPENDED]: "licet.license.suspended.v1",
  [LicenseChangeCause.RESUMED]: "licet.license.resumed.v1",
  [LicenseChangeCause.REVOKED]: "licet.license.revoked.v1",
  [LicenseChangeCause.KEY_ISSUED]: "licet.key.issued.v1",
  [LicenseChangeCause.KEY_ROTATED]: "licet.key.rotated.v1",
  [LicenseChangeCause.KEY_REVOKED]: "licet.key.revoked.v1",
  [LicenseChangeCause.KEY_REVEALED]: "licet.key.revealed.v1",
  [LicenseChangeCause.UPDATED]: "licet.license.updated.v1",
  [LicenseChangeCause.RENEWED]: "licet.license.renewed.v1",
  [LicenseChangeCause.CANCELLED]: "licet.license.cancelled.v1",
  [LicenseChangeCause.CANCELLATION_SCHEDULED]: "licet.license.cancellation-scheduled.v1",
  [LicenseChangeCause.TRANSFERRED]: "licet.license.transferred.v1",
  [LicenseChangeCause.TRANSFERRED_AWAY]: "licet.license.transferred-away.v1",
  [LicenseChangeCause.PLAN_CHANGED]: "licet.license.plan-changed.v1",
  [LicenseChangeCause.TRIAL_EXTENDED]: "licet.license.trial-extended.v1",
  [LicenseChangeCause.PAST_DUE]: "licet.license.past-due.v1",
  [LicenseChangeCause.REACTIVATED]: "licet.license.reactivated.v1",
  [LicenseChangeCause.ACTIVATED]: "licet.license.activated.v1",
  [LicenseChangeCause.TRIAL_ENDED]: "licet.license.trial-ended.v1",
  [LicenseChangeCause.GRACE_STARTED]: "licet.license.grace-started.v1",
  [LicenseChangeCause.GRACE_ENDED]: "licet.license.grace-ended.v1",
  [LicenseChangeCause.EXPIRED]: "licet.license.expired.v1",
  [LicenseChangeCause.EXPIRY_NOTICE]: "licet.license.expiry-notice.v1",
  [LicenseChangeCause.RENEWAL_DUE]: "licet.license.renewal-due.v1",
  [LicenseChangeCause.FEATURE_ACTIVATED]: "licet.feature.activated.v1",
  [LicenseChangeCause.FEATURE_DEACTIVATED]: "licet.feature.deactivated.v1",
  [LicenseChangeCause.GRANT_EXPIRED]: "licet.feature.grant-expired.v1",
  [LicenseChangeCause.CUSTOMER_UPDATED]: "licet.customer.updated.v1",
};

/** The CloudEvents type of what happens to seats, as the contract documents it. */
export const seatEventTypes: Readonly<Record<Exclude<SeatChangeCause, SeatChangeCause.UNSPECIFIED>, string>> = {
  [SeatChangeCause.ACTIVATED]: "licet.seat.activated.v1",
  [SeatChangeCause.DEACTIVATED]: "licet.seat.deactivated.v1",
  [SeatChangeCause.RELEASED]: "licet.seat.released.v1",
  [SeatChangeCause.LEASE_EXPIRED]: "licet.seat.lease-expired.v1",
};

/** The type of the event of a changed product catalogue. */
export const CATALOG_CHANGED = "licet.catalog.changed.v1";

/** The type of the event of a changed API key. */
export const CREDENTIAL_CHANGED = "licet.credential.changed.v1";

/** The type of the event of a changed signing key. It stays in the history, for audits: nobody has to hear of it. */
export const SIGNING_KEY_CHANGED = "licet.signing-key.changed.v1";

/** The largest payload of an event, in bytes: what the buses take, less room for headers. */
export const MAX_EVENT_BYTES = 900 * 1024;

/** The topic by which deciders know how fresh their replica is: the one that revocations travel by. */
export const heartbeatTopics = [topicOf(EntitlementSnapshotSchema).name];

/**
 * The records of an event of the history: a change of a customer or license goes to the history topic and, as its
 * snapshot alone, to the compacted topic of entitlements; a change of a seat to the topic of seats.
 */
export function toRecords(event: StoredEvent): OutgoingRecord[] {
  const envelope = {
    id: event.eventId,
    source: "licet/licensing",
    type: event.type,
    subject: event.stream,
    time: event.createdAt,
    traceparent: event.traceparent,
  };
  switch (event.type) {
    case CATALOG_CHANGED: {
      const message = fromBinary(ProductCatalogSchema, event.payload);
      return [
        toRecord({ ...envelope, schema: ProductCatalogSchema, message, key: `${event.tenantId}/${message.product}` }),
      ];
    }
    case CREDENTIAL_CHANGED: {
      const message = fromBinary(CredentialChangedSchema, event.payload);
      return [toRecord({ ...envelope, schema: CredentialChangedSchema, message, key: message.keyId })];
    }
    case SIGNING_KEY_CHANGED:
      return [];
    case seatEventTypes[SeatChangeCause.ACTIVATED]:
    case seatEventTypes[SeatChangeCause.DEACTIVATED]:
    case seatEventTypes[SeatChangeCause.RELEASED]:
    case seatEventTypes[SeatChangeCause.LEASE_EXPIRED]: {
      const message = fromBinary(SeatChangedSchema, event.payload);
      return [
        toRecord({ ...envelope, schema: SeatChangedSchema, message, key: `${event.tenantId}/${message.customerId}` }),
      ];
    }
    default: {
      const message = fromBinary(LicenseChangedSchema, event.payload);
      const { snapshot } = message;
      if (!snapshot) throw new Error(`event ${event.eventId} of ${event.stream} has no snapshot`);
      const key = `${event.tenantId}/${message.customerId}`;
      return [
        toRecord({ ...envelope, schema: LicenseChangedSchema, message, key }),
        toRecord({ ...envelope, schema: EntitlementSnapshotSchema, message: snapshot, key }),
      ];
    }
  }
}

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ProductCatalogSchema } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CredentialChangedSchema } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { SigningKeySchema } from "@licet/contracts/licet/licensing/v1/license_key_pb";
import { LicenseSchema } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicenseChangeCause, LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { SeatChangeCause, SeatChangedSchema } from "@licet/contracts/licet/licensing/v1/seat_events_pb";
import { PLATFORM_TENANT } from "@licet/platform/credentials";
import type { ServiceError } from "@licet/platform/errors";
import { append, appendAll, type NewEvent } from "@licet/platform/events/outbox";
import type { Call } from "@licet/platform/rpc/call";
import { callerOf } from "@licet/platform/rpc/caller";
import { currentTraceparent } from "@licet/platform/telemetry";
import type { Transaction } from "kysely";
import type { Context } from "./context.ts";
import type { Activation } from "./domain/seats.ts";
import type { SigningKey, SigningKeyStatus } from "./domain/signing-key.ts";
import { failure } from "./errors.ts";
import {
  CATALOG_CHANGED,
  CREDENTIAL_CHANGED,
  eventTypes,
  MAX_EVENT_BYTES,
  SIGNING_KEY_CHANGED,
  seatEventTypes,
} from "./events.ts";
import { catalogToProto, credentialToProto, snapshotToProto, toEnum } from "./rpc/convert.ts";
import { signingKeyToProto } from "./rpc/convert-keys.ts";
import { activationToProto, seatsToProto } from "./rpc/convert-seats.ts";
import { getCatalog } from "./store/catalog.ts";
import { type HistoryEntry, insertHistoryEntries } from "./store/history.ts";
import type { DB } from "./store/schema.ts";
import type { LockedSeats } from "./store/seats.ts";
import { findSnapshot, type Snapshot } from "./store/snapshots.ts";
import type { ApiKey } from "./store/tenants.ts";

/** What happened to a customer or to one of its licenses. */
export interface LicenseChange {
  customerId: string;
  /** The entitlement version that the change raised; its row lock is held. */
  version: bigint;
  cause: Exclude<LicenseChangeCause, LicenseChangeCause.UNSPECIFIED>;
  /** Absent when it happened to the customer. */
  licenseId?: string;
  /** The id of the license key that it happened to, or that the license was put under. */
  keyId?: string;
  /** The feature that was activated or deactivated, or whose grant is over. */
  feature?: string;
  /** Why, as told by the actor. */
  reason?: string;
  /** Since when it holds; the time of writing when absent. */
  effectiveAt?: Date;
  /** Of EXPIRY_NOTICE. */
  noticeDays?: number;
  /** The license as it was, and as it is from then on; kept for audit. */
  before?: MessageInitShape<typeof LicenseSchema>;
  after?: MessageInitShape<typeof LicenseSchema>;
}

/** Who does something without a call: a worker, for a tenant. */
export interface Worker {
  readonly tenant: string;
  /** Its name in the history; where it carries out what a call asked for, the credential of that call. */
  readonly actor: string;
  /** Where that call came from. */
  readonly ipAddress?: string;
  readonly userAgent?: string;
}

/** Causes by which what a customer holds can grow much: only what adds may be refused, the rest is room for later changes. */
const ADDING: ReadonlySet<LicenseChangeCause> = new Set([
  LicenseChangeCause.PROVISIONED,
  LicenseChangeCause.TRANSFERRED,
  LicenseChangeCause.UPDATED,
  LicenseChangeCause.PLAN_CHANGED,
  LicenseChangeCause.FEATURE_ACTIVATED,
]);

/**
 * Appends a change to the customer's history, with everything that holds after it. Call it after the rows are written.
 *
 * @throws ServiceError FAILED_PRECONDITION `TOO_MANY_LICENSES` when a change that adds makes what holds too large for an
 * event
 */
export async function recordLicenseChange(
  ctx: Context,
  tx: Transaction<DB>,
  by: Call | Worker,
  change: LicenseChange,
): Promise<void> {
  const snapshot = await findSnapshot(tx, by.tenant, change.customerId);
  if (!snapshot) throw new Error(`customer ${change.customerId} has a locked row but no snapshot`);
  await appendChanges(tx, by.tenant, [toRecorded(ctx, by, change, snapshot)]);
}

/** A change as it is written: the event that others hear, and the entry that is kept for audit. */
export interface RecordedChange {
  readonly event: NewEvent;
  readonly entry: HistoryEntry;
}

/**
 * A change with everything that holds after it, to be written by {@link appendChanges}.
 *
 * @param snapshot - the customer in the version of the change
 * @throws ServiceError as {@link recordLicenseChange}
 */
export function toRecorded(ctx: Context, by: Call | Worker, change: LicenseChange, snapshot: Snapshot): RecordedChange {
  const author = authorOf(by);
  const { customerId, version, cause, reason = "", noticeDays = 0, effectiveAt = snapshot.issuedAt } = change;
  const message = create(LicenseChangedSchema, {
    tenantId: by.tenant,
    customerId,
    version,
    cause,
    licenseId: change.licenseId ?? "",
    snapshot: snapshotToProto(snapshot),
    actor: author.actor,
    reason,
    keyId: change.keyId ?? "",
    feature: change.feature ?? "",
    occurredAt: timestampFromDate(snapshot.issuedAt),
    effectiveAt: timestampFromDate(effectiveAt),
    noticeDays,
  });
  const payload = toBinary(LicenseChangedSchema, message);
  if (ADDING.has(cause) && payload.length > MAX_EVENT_BYTES) throw tooLarge(customerId, payload.length);
  const eventId = ctx.newId();
  const event: NewEvent = {
    eventId,
    tenantId: by.tenant,
    stream: `customer/${customerId}`,
    version,
    type: eventTypes[cause],
    payload,
    actor: author.actor,
    traceparent: currentTraceparent(),
  };
  const entry: HistoryEntry = {
    eventId,
    customerId,
    version,
    cause,
    ...(change.licenseId !== undefined && { licenseId: change.licenseId }),
    ...(change.keyId !== undefined && { keyId: change.keyId }),
    ...(change.feature !== undefined && { feature: change.feature }),
    ...author,
    reason,
    ...(change.before && { before: toBinary(LicenseSchema, create(LicenseSchema, change.before)) }),
    ...(change.after && { after: toBinary(LicenseSchema, create(LicenseSchema, change.after)) }),
    noticeDays,
    effectiveAt,
  };
  return { event, entry };
}

/** Writes changes, those of one customer in the order of their versions. The customers' rows are locked. */
export async function appendChanges(
  tx: Transaction<DB>,
  tenant: string,
  changes: readonly RecordedChange[],
): Promise<void> {
  await appendAll(
    tx,
    changes.map(({ event }) => event),
  );
  await insertHistoryEntries(
    tx,
    tenant,
    changes.map(({ entry }) => entry),
  );
}

/** Who does something, and from where, as the history keeps it. */
export function authorOf(by: Call | Worker): { actor: string; ipAddress: string; userAgent: string } {
  if (!("actor" in by)) return { actor: by.credential.id, ...callerOf(by) };
  return { actor: by.actor, ipAddress: by.ipAddress ?? "", userAgent: by.userAgent ?? "" };
}

function tooLarge(customerId: string, bytes: number): ServiceError {
  return failure(
    "TOO_MANY_LICENSES",
    `The licenses of customer ${customerId} would take ${bytes} bytes; at most ${MAX_EVENT_BYTES} are possible.`,
    { maximum: `${MAX_EVENT_BYTES} bytes` },
  );
}

/** What happened to seats of a license, by whom. */
export interface SeatChange {
  licenseId: string;
  customerId: string;
  cause: "activated" | "deactivated" | "released" | "lease_expired";
  actor: string;
  /** Why, as told by the actor. */
  reason: string;
}

/**
 * Appends what happened to seats to the history of their license, an event for each. The row of its seats is locked, and its
 * version was raised by as many.
 *
 * @param done - the seats it happened to, and how it stands after the last of them
 */
export async function recordSeatChanges(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  { cause, ...change }: SeatChange,
  done: { activations: readonly Activation[]; seats: LockedSeats; at: Date },
): Promise<void> {
  const { activations, seats, at } = done;
  const events = activations.map((activation, index): NewEvent => {
    const later = activations.length - 1 - index;
    const used = cause === "activated" ? seats.used - later : seats.used + later;
    const version = seats.version - BigInt(later);
    const message = create(SeatChangedSchema, {
      tenantId: tenant,
      ...change,
      version,
      cause: toEnum(SeatChangeCause, cause),
      activation: activationToProto(activation),
      seats: seatsToProto({ ...seats, used }),
      occurredAt: timestampFromDate(at),
    });
    return {
      eventId: ctx.newId(),
      tenantId: tenant,
      stream: `seats/${change.licenseId}`,
      version,
      type: seatEventTypes[toEnum(SeatChangeCause, cause)],
      payload: toBinary(SeatChangedSchema, message),
      actor: change.actor,
      traceparent: currentTraceparent(),
    };
  });
  await appendAll(tx, events);
}

/** Appends a product's catalogue as it now is to the product's history. */
export async function recordCatalogChange(
  ctx: Context,
  tx: Transaction<DB>,
  call: Call,
  product: string,
): Promise<void> {
  const catalog = await getCatalog(tx, call.tenant, product);
  await append(tx, {
    eventId: ctx.newId(),
    tenantId: call.tenant,
    stream: `product/${product}`,
    version: catalog.version,
    type: CATALOG_CHANGED,
    payload: toBinary(ProductCatalogSchema, create(ProductCatalogSchema, catalogToProto(catalog))),
    actor: call.credential.id,
    traceparent: currentTraceparent(),
  });
}

/** Appends an API key as it now is to the key's history. The transaction's tenant is the key's. */
export async function recordCredentialChange(
  ctx: Context,
  tx: Transaction<DB>,
  actor: string,
  key: ApiKey,
): Promise<void> {
  await append(tx, {
    eventId: ctx.newId(),
    tenantId: key.tenantId,
    stream: `credential/${key.keyId}`,
    version: key.version,
    type: CREDENTIAL_CHANGED,
    payload: toBinary(CredentialChangedSchema, create(CredentialChangedSchema, credentialToProto(key))),
    actor,
    traceparent: currentTraceparent(),
  });
}

/** Appends a signing key as it now is to its history. The transaction's tenant is the platform. */
export async function recordSigningKeyChange(
  ctx: Context,
  tx: Transaction<DB>,
  actor: string,
  key: SigningKey,
  status: SigningKeyStatus,
): Promise<void> {
  await append(tx, {
    eventId: ctx.newId(),
    tenantId: PLATFORM_TENANT,
    stream: `signing-key/${key.kid}`,
    version: key.version,
    type: SIGNING_KEY_CHANGED,
    payload: toBinary(SigningKeySchema, create(SigningKeySchema, signingKeyToProto(key, status))),
    actor,
    traceparent: currentTraceparent(),
  });
}

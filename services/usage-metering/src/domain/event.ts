import { invalidArgument } from "@licet/platform/errors";
import { Big } from "big.js";

/** A usage event as it is counted. Ids and codes are empty where the sender named none. */
export interface UsageEvent {
  tenant: string;
  source: string;
  id: string;
  customerId: string;
  licenseId: string;
  metric: string;
  feature: string;
  action: string;
  /** A decimal that is not negative. */
  quantity: string;
  dimensions: Readonly<Record<string, string>>;
  occurredAt: Date;
  acceptedAt: Date;
  /** The id of the credential that sent it. */
  actor: string;
}

/** How far ahead the sender's clock may be, in milliseconds. */
const MAX_AHEAD_MS = 60_000;
/** Usage is kept for three years (product.md, L3); what is older can't be counted any more. */
const MAX_AGE_YEARS = 3;

/**
 * When an event happened: as the sender says, or now.
 *
 * @param field - the request's field, for the error
 * @throws ServiceError INVALID_ARGUMENT when it lies 3 years back or more than 60 seconds ahead; then it says after
 *   how long the same will be taken, for senders whose clock is ahead
 */
export function occurrence(field: string, said: Date | undefined, now: Date): Date {
  if (!said) return now;
  const oldest = new Date(now);
  oldest.setUTCFullYear(oldest.getUTCFullYear() - MAX_AGE_YEARS);
  if (Number.isNaN(said.getTime()) || said < oldest) {
    throw invalidArgument(
      field,
      `must not be before ${oldest.toISOString()}: usage is kept for ${MAX_AGE_YEARS} years`,
    );
  }
  const tooFarMs = said.getTime() - now.getTime() - MAX_AHEAD_MS;
  if (tooFarMs > 0) {
    throw invalidArgument(
      field,
      `must not lie in the future: it is ${said.toISOString()} and now is ${now.toISOString()} (60 seconds are tolerated)`,
      tooFarMs,
    );
  }
  return said;
}

/**
 * What the sender said beside the key, as one text: two events of one key with different payloads contradict each other.
 * A time of occurrence that equals the time of acceptance is ours, not the sender's, and differs in each repetition.
 */
export function payloadOf(event: UsageEvent): string {
  const said = event.occurredAt.getTime() === event.acceptedAt.getTime() ? null : event.occurredAt.toISOString();
  const dimensions = Object.entries(event.dimensions).sort(([a], [b]) => (a < b ? -1 : 1));
  const { customerId, licenseId, metric, feature, action } = event;
  const content = [customerId, licenseId, metric, feature, action, new Big(event.quantity).toFixed(), dimensions, said];
  return JSON.stringify(content);
}

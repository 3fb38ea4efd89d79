import { invalidArgument } from "../errors.ts";

/** Something that a customer used. */
export interface UsageEvent {
  /** Who used it, 1 to 255 characters. */
  readonly customerId: string;
  /** What is counted, such as `exchange_requests`. */
  readonly metric: string;
  /**
   * How much; 1 when absent. Not negative, with at most 18 digits before and 9 after the point; a fraction that a number
   * can't hold exactly, such as 0.1 + 0.2, goes as a string.
   */
  readonly quantity?: number | bigint | string;
  /** By which feature. */
  readonly feature?: string;
  /** What was done, such as `API_CALL`; at most 64 characters. */
  readonly action?: string;
  /** Under which license, a UUID; the customer's first that prices the metric when absent. */
  readonly licenseId?: string;
  /** Further facts, kept with the event: at most 20, names of 1 to 64 and values of at most 256 characters. */
  readonly dimensions?: Readonly<Record<string, string>>;
  /**
   * The event's id, 1 to 255 characters: of the same source and id one event counts, however often it is tracked. Give one
   * where the same thing may be tracked twice, such as the id of an order; a new one is made when absent.
   */
  readonly id?: string;
  /**
   * When it was used; now when absent. The server takes at most 60 seconds ahead and 3 years back; an event that lies at
   * most a day ahead waits until it is taken.
   */
  readonly occurredAt?: Date;
}

/** An event as it waits: checked, and copied from what the caller may change. */
export interface PendingEvent {
  /** Counts this tracker's events from 1; the id is made of it where the caller gave none. */
  readonly sequence: number;
  readonly id: string | undefined;
  readonly customerId: string;
  readonly metric: string;
  readonly quantity: string;
  readonly feature: string;
  readonly action: string;
  readonly licenseId: string;
  /** Names and values in turn. */
  readonly dimensions: readonly string[];
  readonly occurredAtMs: number;
}

const CODE = /^[a-z0-9][a-z0-9_.-]{0,62}$/;
const QUANTITY = /^[0-9]{1,18}(\.[0-9]{1,9})?$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const MAX_DIMENSIONS = 20;
const NO_DIMENSIONS: readonly string[] = [];
/** Codes found good, so that a call looks one up and matches nothing; programs use few. */
const MAX_KNOWN_CODES = 1_000;
const knownCodes = new Set<string>();

/**
 * Checks an event by the rules of the contract, so that a mistake is found where it is made and not in the answer to a
 * batch much later.
 *
 * @throws {LicetError} `INVALID_FIELD` naming the field.
 */
export function toPending(event: UsageEvent, sequence: number, nowMs: number): PendingEvent {
  const { id, feature, action, licenseId, dimensions, occurredAt, quantity } = event;
  if (id !== undefined) checkText("id", id, 1, 255);
  checkText("customerId", event.customerId, 1, 255);
  checkCode("metric", event.metric);
  if (feature !== undefined) checkCode("feature", feature);
  if (action !== undefined) checkText("action", action, 0, 64);
  if (licenseId !== undefined && !UUID.test(licenseId)) throw invalidArgument("licenseId", "must be a UUID");
  return {
    sequence,
    id,
    customerId: event.customerId,
    metric: event.metric,
    quantity: quantity === undefined ? "1" : toDecimal(quantity),
    feature: feature ?? "",
    action: action ?? "",
    licenseId: licenseId ?? "",
    dimensions: dimensions === undefined ? NO_DIMENSIONS : toPairs(dimensions),
    occurredAtMs: occurredAt === undefined ? nowMs : toMs(occurredAt),
  };
}

function checkText(field: string, value: string, min: number, max: number): void {
  if (typeof value === "string") {
    const { length } = value;
    // The contract counts characters, of which two UTF-16 units may make one.
    if (length >= min && (length <= max || (length <= 2 * max && [...value].length <= max))) return;
  }
  throw invalidArgument(field, `must be a text of ${min} to ${max} characters`);
}

function checkCode(field: string, value: string): void {
  if (knownCodes.has(value)) return;
  if (typeof value !== "string" || !CODE.test(value)) {
    throw invalidArgument(field, `must match ${CODE.source}, such as "api_calls"; it is ${JSON.stringify(value)}`);
  }
  if (knownCodes.size < MAX_KNOWN_CODES) knownCodes.add(value);
}

function toDecimal(quantity: number | bigint | string): string {
  const text = String(quantity);
  if (QUANTITY.test(text)) return text;
  throw invalidArgument(
    "quantity",
    `must be a decimal that is not negative, with at most 18 digits before and 9 after the point; it is ${text}`,
  );
}

function toMs(occurredAt: Date): number {
  const ms = occurredAt.getTime();
  if (Number.isNaN(ms)) throw invalidArgument("occurredAt", "must be a valid date");
  return ms;
}

function toPairs(dimensions: Readonly<Record<string, string>>): readonly string[] {
  const pairs = Object.entries(dimensions);
  if (pairs.length > MAX_DIMENSIONS) {
    throw invalidArgument("dimensions", `must have at most ${MAX_DIMENSIONS} entries; it has ${pairs.length}`);
  }
  for (const [name, value] of pairs) {
    checkText("dimensions (a name)", name, 1, 64);
    checkText(`dimensions[${JSON.stringify(name)}]`, value, 0, 256);
  }
  return pairs.flat();
}

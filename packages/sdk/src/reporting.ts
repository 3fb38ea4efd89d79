/** What a client tells Licet beside its questions: what was used, and who holds a seat. */
import { type Activation, activateOver, type Installation } from "./activation.ts";
import { type Connection, type ConnectionOptions, connect } from "./connection.ts";
import { invalidArgument } from "./errors.ts";
import { type KeptSeat, keepSeat, type SeatChange } from "./seat-keeper.ts";
import { createTelemetry, type Telemetry } from "./telemetry.ts";
import { sendOver } from "./track/send.ts";
import { createTracker, type TrackCounts, type Tracker, type TrackOptions } from "./track/tracker.ts";
import type { UsageEvent } from "./track/usage-event.ts";

/** Options of clients that are connected. */
export interface ReportingOptions {
  /** How usage is tracked. */
  readonly track?: TrackOptions;
}

/** Calls by license key, and a seat that is kept. */
export interface Seating extends Activation {
  /**
   * Activates an instance and keeps its seat by heartbeats, until the seat is released or closed. While Licet can't be
   * reached the product may go on for its lease or its `offline_days`, whichever is longer.
   *
   * @param onChange told about each change of the seat's state
   */
  keepSeat(installation: Installation, onChange?: (change: SeatChange) => void): KeptSeat;
}

/** What clients that are connected can do beside asking. */
export interface Reporting extends Seating {
  /**
   * Takes a usage event, to be sent in the background and sent again with the same id until the server has it.
   *
   * @returns whether it was taken; false: as many wait as may, or the client is closed.
   * @throws {LicetError} INVALID_ARGUMENT for an event that the server would refuse.
   */
  track(event: UsageEvent): boolean;
  /** Resolves with true once the server has all that was tracked before, or with false after `timeoutMs` (5,000). */
  flush(timeoutMs?: number): Promise<boolean>;
  /** What became of the usage events so far. */
  trackCounts(): TrackCounts;
}

const FLUSH_TIMEOUT_MS = 5_000;
const NOTHING_TRACKED: TrackCounts = {
  inherited: 0,
  tracked: 0,
  turnedAway: 0,
  delivered: 0,
  refused: 0,
  lost: 0,
  waiting: 0,
  retries: 0,
};

/** Adds to a client what it can report over its connection. Its `close` delivers usage first, as long as that may take. */
export function withReporting<C extends { close(): Promise<void> }>(
  client: C,
  connection: Connection,
  { track: options }: ReportingOptions,
  telemetry: Telemetry,
): C & Reporting {
  const close = client.close.bind(client);
  let tracker: Tracker | undefined;
  let ending: Promise<void> | undefined;
  const tracking = (): Tracker => {
    tracker ??= createTracker(sendOver(connection), options);
    return tracker;
  };
  // What earlier runs left on disk is sent whether or not this one has anything to track.
  if (options !== undefined) tracking();
  const seats = seatsOver(connection);
  const counts = (): TrackCounts => tracker?.counts() ?? NOTHING_TRACKED;
  const stopObserving = telemetry.observeUsage(counts);

  const end = async (): Promise<void> => {
    seats.close();
    await tracker?.close();
    stopObserving();
    await close();
  };
  const reporting: Reporting & { close(): Promise<void> } = {
    ...seats.seating,
    // Who has tracked nothing before the end has no tracker, and needs none any more.
    track: (event) => (ending === undefined || tracker !== undefined) && tracking().track(event),
    flush: async (timeoutMs = FLUSH_TIMEOUT_MS) => tracker?.flush(timeoutMs) ?? true,
    trackCounts: counts,
    close() {
      ending ??= end();
      return ending;
    },
  };
  // Not spread: what the client tells by getters goes on being told by them.
  return Object.assign(client, reporting);
}

/** A client of an installed product, which has a license key and no API key. */
export interface ProductClient extends Seating {
  /** Ends the heartbeats and the connection. */
  close(): void;
}

/**
 * Creates a client for an installed product.
 *
 * @throws {LicetError} INVALID_ARGUMENT for an address that is missing.
 */
export function createProductClient(options: Omit<ConnectionOptions, "apiKey">): ProductClient {
  if (typeof options.address !== "string" || options.address === "") {
    throw invalidArgument("address", "is missing, must be a text");
  }
  const connection = connect(options, createTelemetry());
  const seats = seatsOver(connection);
  return {
    ...seats.seating,
    close() {
      seats.close();
      connection.close();
    },
  };
}

/** The calls by license key over a connection, and what ends all seats that are kept. */
function seatsOver(connection: Connection): { seating: Seating; close(): void } {
  const activation = activateOver(connection);
  const kept = new Set<KeptSeat>();
  const seating: Seating = {
    ...activation,
    keepSeat(installation, onChange) {
      const seat = keepSeat(activation, installation, onChange);
      kept.add(seat);
      return seat;
    },
  };
  return { seating, close: () => kept.forEach((seat) => void seat.close()) };
}

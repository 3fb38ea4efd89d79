import { type Connection, connect } from "./connection.ts";
import { processEnvironment } from "./environment.ts";
import { invalidArgument } from "./errors.ts";
import type { LocalLicet, LocalOptions, OfflineOptions, RemoteLicet, RemoteOptions } from "./licet.ts";
import { createLocal } from "./local.ts";
import { createOffline } from "./offline.ts";
import { createRemote } from "./remote.ts";
import { type Reporting, withReporting } from "./reporting.ts";
import { createTelemetry, type Telemetry } from "./telemetry.ts";

export type {
  ActivateAnswer,
  Activation,
  DeactivateAnswer,
  HeartbeatAnswer,
  Installation,
  Instance,
  KeyAnswer,
  KeyLicense,
  KeyReason,
  LicenseAnswer,
  Seat,
  Seats,
} from "./activation.ts";
export type { ConnectionOptions, TlsOptions } from "./connection.ts";
export { type ErrorCode, type FieldViolation, LicetDenied, LicetError, type LicetErrorInit } from "./errors.ts";
export type {
  AskOptions,
  Client,
  JwkSet,
  LocalLicet,
  LocalOptions,
  OfflineOptions,
  RemoteLicet,
  RemoteOptions,
  State,
  StateChange,
} from "./licet.ts";
export {
  createProductClient,
  type ProductClient,
  type Reporting,
  type ReportingOptions,
  type Seating,
} from "./reporting.ts";
export type { KeptSeat, SeatChange, SeatState } from "./seat-keeper.ts";
export type { SpoolOptions } from "./track/spool.ts";
export type { TrackCounts, TrackOptions, TrackProblem } from "./track/tracker.ts";
export type { UsageEvent } from "./track/usage-event.ts";
export type {
  Decision,
  Explanation,
  ExplanationStep,
  LicenseStatus,
  LicenseType,
  LimitViolation,
  LimitWindow,
  Question,
  QuestionContext,
  Reason,
  StepSubject,
  Verdict,
  VerdictGrant,
  VerdictLicense,
  VerdictSource,
} from "./verdict.ts";

/**
 * Creates a client. It works at once and goes on by itself until `close`; `ready` tells when it can answer.
 *
 * @throws {LicetError} INVALID_ARGUMENT for an option that can't be right.
 */
export function createLicet(options: RemoteOptions): RemoteLicet & Reporting;
export function createLicet(options: LocalOptions): LocalLicet & Reporting;
export function createLicet(options: OfflineOptions): LocalLicet;
export function createLicet(options: RemoteOptions | LocalOptions | OfflineOptions): RemoteLicet | LocalLicet;
export function createLicet(options: RemoteOptions | LocalOptions | OfflineOptions): RemoteLicet | LocalLicet {
  switch (options.mode) {
    case "remote":
      return connected(options, (connection) => createRemote(connection));
    case "local":
      return connected(options, (connection, telemetry) =>
        createLocal(options, connection, processEnvironment, telemetry),
      );
    case "offline":
      return createOffline(options, processEnvironment, createTelemetry());
    default:
      // The types rule it out, for those who have them.
      throw invalidArgument(
        "mode",
        `is ${JSON.stringify((options as { mode?: unknown }).mode)}, must be "remote", "local" or "offline"`,
      );
  }
}

/** Creates a client over a connection of its own, with all that it can report over it. */
function connected<O extends RemoteOptions | LocalOptions, C extends RemoteLicet | LocalLicet>(
  options: O,
  createClient: (connection: Connection, telemetry: Telemetry) => C,
): C & Reporting {
  for (const name of ["address", "apiKey"] as const) {
    const found: unknown = options[name];
    if (typeof found !== "string" || found === "") throw invalidArgument(name, "is missing, must be a text");
  }
  const telemetry = createTelemetry();
  const connection = connect(options, telemetry);
  return withReporting(createClient(connection, telemetry), connection, options, telemetry);
}

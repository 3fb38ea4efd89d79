import type { ConnectionOptions } from "./connection.ts";
import type { LicetError } from "./errors.ts";
import type { ReportingOptions } from "./reporting.ts";
import type { Explanation, Question, QuestionContext, Verdict } from "./verdict.ts";

/**
 * Where a client stands. `READY`: it decides on facts that are young enough. `STALE`: its facts are too old, so features'
 * fail modes decide. `ERROR`: it has no facts, or can't ask; it goes on trying. `FATAL`: it has given up trying, because
 * only a person can mend it (the API key is refused, no license file is good); facts that it has go on ageing.
 */
export type State = "READY" | "STALE" | "ERROR" | "FATAL";

/** From one state to another. */
export interface StateChange {
  readonly state: State;
  readonly previous: State;
  /** What led to it, where something went wrong. */
  readonly error: LicetError | undefined;
}

/** Every question goes to the ValidationService. */
export interface RemoteOptions extends ConnectionOptions, ReportingOptions {
  readonly mode: "remote";
  readonly apiKey: string;
}

/** Decides in-process, on what a watch of the ValidationService tells; outlives outages, and with a cache also restarts. */
export interface LocalOptions extends ConnectionOptions, ReportingOptions {
  readonly mode: "local";
  readonly apiKey: string;
  /** The customers to decide for, 1,000 at most; all of the tenant when absent. */
  readonly customerIds?: readonly string[];
  /** The directory, of this client alone, in which facts outlive restarts; without it a restart during an outage knows nothing. */
  readonly cacheDir?: string;
}

/** Decides in-process on signed licenses or token keys alone, with no connection at all. */
export interface OfflineOptions {
  readonly mode: "offline";
  /** Files with a signed license (`GetSignedLicense`'s `jws`) or a token key each; 1,000 at most. They are read once. */
  readonly licenseFiles: readonly string[];
  /** The installation's public keys: the JSON of its `/.well-known/jwks.json`. */
  readonly publicKeys: JwkSet;
  /** The directory, of this client alone, in which the clock outlives restarts; without it one that was set back is not noticed. */
  readonly cacheDir?: string;
}

/** A JWK set (RFC 7517); of its keys those of Ed25519 count. */
export interface JwkSet {
  readonly keys: readonly { readonly kty: string; readonly kid?: string; readonly crv?: string; readonly x?: string }[];
}

/** What all clients have. */
export interface Client {
  readonly state: State;
  /** Calls `listener` behind every change of the state; what is returned ends that. */
  on(event: "state", listener: (change: StateChange) => void): () => void;
  /** Resolves once the client can decide (READY or STALE). @throws {LicetError} once it is FATAL or closed. */
  ready(): Promise<void>;
  /** Ends the client; afterwards every call is refused with `CLIENT_CLOSED`. Can be called twice. */
  close(): Promise<void>;
}

/** What a single question of `remote` mode may say for itself. */
export interface AskOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A client that asks. @see RemoteOptions */
export interface RemoteLicet extends Client {
  readonly mode: "remote";
  /** May this customer use this feature? @throws {LicetError} when nobody answers; it is for the caller to fail open or closed. */
  check(customerId: string, feature: string, context?: QuestionContext, options?: AskOptions): Promise<Verdict>;
  /** As `check`, with all that a question can say. */
  ask(question: Question, options?: AskOptions): Promise<Verdict>;
  /**
   * Answers many questions, also about different customers, in their order and with one call; 1,000 at most. A question that
   * can't be answered has its error in its place. @throws {LicetError} when nobody answers any.
   */
  askMany(questions: readonly Question[], options?: AskOptions): Promise<readonly (Verdict | LicetError)[]>;
  /** Answers about many features of one customer, in their order, at one moment; without sentences and limits exceeded. */
  checkMany(
    customerId: string,
    features: readonly string[],
    context?: QuestionContext,
    options?: AskOptions,
  ): Promise<readonly Verdict[]>;
  /** As `check`, but only an allowance without reserve returns. @throws {LicetDenied} with the verdict otherwise. */
  require(customerId: string, feature: string, context?: QuestionContext, options?: AskOptions): Promise<Verdict>;
  /** As `check`, with all that was looked at. */
  explain(customerId: string, feature: string, context?: QuestionContext, options?: AskOptions): Promise<Explanation>;
}

/** A client that decides itself. @see LocalOptions @see OfflineOptions */
export interface LocalLicet extends Client {
  readonly mode: "local" | "offline";
  /**
   * May this customer use this feature? Asks nobody and waits for nothing.
   *
   * @throws {LicetError} INVALID_ARGUMENT for a value that a limit counts and that is no decimal; CANCELLED once closed.
   */
  check(customerId: string, feature: string, context?: QuestionContext): Verdict;
  /** Answers about many features of one customer, in their order. */
  checkMany(customerId: string, features: readonly string[], context?: QuestionContext): readonly Verdict[];
  /** As `check`, but only an allowance without reserve returns. @throws {LicetDenied} with the verdict otherwise. */
  require(customerId: string, feature: string, context?: QuestionContext): Verdict;
  /** As `check`, with all that was looked at. */
  explain(customerId: string, feature: string, context?: QuestionContext): Explanation;
}

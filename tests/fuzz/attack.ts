import type { DescMethod } from "@bufbuild/protobuf";
import type { Tally } from "./tally.ts";

/** Whom an attack is aimed at, and with what. */
export interface Target {
  readonly grpcPort: number;
  readonly webPort: number;
  /** An API key that may do everything within the demo tenant. */
  readonly key: string;
  /** The operator's, for the methods that are the operator's alone. */
  readonly operatorKey: string;
  /** Every method of the product, and a request of it that is taken. */
  readonly methods: readonly Sample[];
  /** Numbers in [0, 1) that the seed decides. */
  readonly random: () => number;
  /** Aborted when the attack's time is up. */
  readonly signal: AbortSignal;
  /** Keeps everybody from the licenses while `work` goes on, so that handlers that read them get stuck. */
  stall(work: () => Promise<void>): Promise<void>;
  /** What mutated requests were accepted, as `method request_id`: their effects are no finding. */
  readonly accepted: Set<string>;
}

/** A method and one of its requests. */
export interface Sample {
  readonly method: DescMethod;
  /** `/package.Service/Method`. */
  readonly path: string;
  /** Whether only the operator may call it. */
  readonly operators: boolean;
  /** A valid request; a new `request_id` each time. */
  request(): Uint8Array;
}

/** One kind of hostile client. */
export interface Attack {
  readonly name: string;
  /** What it does, in a line for the docs. */
  readonly about: string;
  /** The answers that the docs promise for it, as a {@link Tally} writes them. */
  readonly answers: readonly string[];
  /** Attacks once; called again until the time is up. */
  round(target: Target, tally: Tally): Promise<void>;
}

/** A whole number from 0 to below `limit`. */
export function below(random: () => number, limit: number): number {
  return Math.floor(random() * limit);
}

/** One of several. */
export function pick<T>(random: () => number, of: readonly T[]): T {
  // The index lies inside; that the item is undefined by itself is the list's business.
  return of[below(random, of.length)] as T;
}

/** Bytes without sense. */
export function noise(random: () => number, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => below(random, 256)));
}

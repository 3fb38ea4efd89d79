import type { IncomingHttpHeaders } from "node:http2";
import type { Credential } from "../credentials.ts";
import type { ShortcutHandler } from "./handlers.ts";
import { MIN_LEFT_MS } from "./middleware/deadline.ts";

/** A unary call whose request has arrived whole. */
export interface Arrived {
  readonly headers: IncomingHttpHeaders;
  /** The deadline that the caller set, in epoch milliseconds. */
  readonly deadlineAt: number | undefined;
  readonly request: Uint8Array;
}

/** Answers a call at once, or not at all: undefined, and nothing has happened. */
export type Shortcut = (arrived: Arrived) => Uint8Array | undefined;

/** The steps of the pipeline as a shortcut takes them, for one method. */
export interface ShortcutSteps {
  /** Telemetry: whether somebody records a span of such a call, and what counts one that was answered after so many milliseconds. */
  readonly recorded: (headers: IncomingHttpHeaders) => boolean;
  readonly answered: (durationMs: number) => void;
  /** Overload: whether all slots are taken. */
  readonly full: () => boolean;
  /** Deadline: the clock, in epoch milliseconds. */
  readonly now: () => number;
  /** Authentication: who calls, where that is known without asking anyone. */
  readonly authenticateNow: (headers: IncomingHttpHeaders) => Credential | undefined;
  /** Authorisation: the scope that the method wants. */
  readonly scope: string;
  /** Validation and handler. */
  readonly handler: ShortcutHandler;
}

/**
 * The pipeline for calls that can be answered without waiting for anything: its steps in its order, each as a question of
 * which the answer is yes in the common case. Where one is not, the call goes through the pipeline itself, from the
 * beginning, so there is one place only that refuses. What the pipeline makes for each call (promises, a timer, an
 * AbortController, Headers, a span that nobody records) costs more than the answer, and is needed only by what waits: a
 * call that is over before another one begins takes no slot from anyone, and nobody can cancel it.
 */
export function createShortcut(steps: ShortcutSteps): Shortcut {
  const { recorded, answered, full, now, authenticateNow, scope, handler } = steps;
  return ({ headers, deadlineAt, request }) => {
    if (recorded(headers)) return undefined;
    const begunAt = performance.now();
    if (full()) return undefined;
    if (deadlineAt !== undefined && deadlineAt - now() < MIN_LEFT_MS) return undefined;
    const credential = authenticateNow(headers);
    if (credential === undefined || !credential.scopes.has(scope)) return undefined;
    const reply = handler(credential, request);
    if (reply !== undefined) answered(performance.now() - begunAt);
    return reply;
  };
}

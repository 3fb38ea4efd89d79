import { clientClosed, type LicetError } from "./errors.ts";
import type { Client, State, StateChange } from "./licet.ts";

/** The state of one client, and who wants to hear of it. */
export interface States extends Pick<Client, "on" | "ready"> {
  readonly state: State;
  /** Whether the client was closed. */
  readonly closed: boolean;
  /** Notes where the client stands now, and what led there. The same state again tells nobody. */
  enter(state: State, error?: LicetError): void;
  /** Ends it: whoever waits for `ready` is refused. */
  close(): void;
}

/** Creates the state of a client that knows nothing yet: ERROR. */
export function createStates(): States {
  const listeners = new Set<(change: StateChange) => void>();
  const waiting = new Set<{ resolve: () => void; reject: (error: LicetError) => void }>();
  let state: State = "ERROR";
  let lastError: LicetError | undefined;
  let closed = false;

  const settle = (): void => {
    const refusal = closed ? clientClosed() : state === "FATAL" ? lastError : undefined;
    if (refusal === undefined && state !== "READY" && state !== "STALE") return;
    for (const { resolve, reject } of waiting) refusal === undefined ? resolve() : reject(refusal);
    waiting.clear();
  };

  return {
    get state() {
      return state;
    },
    get closed() {
      return closed;
    },
    enter(next, error) {
      if (closed || next === state) return;
      const change: StateChange = { state: next, previous: state, error };
      state = next;
      lastError = error;
      // Later, so that a listener that throws ends nothing but itself, as an uncaught exception.
      for (const listener of listeners) queueMicrotask(() => listener(change));
      settle();
    },
    on(_event, listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    ready: () =>
      new Promise((resolve, reject) => {
        waiting.add({ resolve, reject });
        settle();
      }),
    close() {
      closed = true;
      listeners.clear();
      settle();
    },
  };
}

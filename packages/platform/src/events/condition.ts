/** Something to wait for. State is checked by the waiter itself, before and after: a wait can end early. */
export interface Condition {
  /** Ends every wait under way. */
  notify(): void;
  /** Resolves at the next `notify`, or when `signal` aborts. */
  wait(signal: AbortSignal): Promise<void>;
}

/** Creates a condition that nobody waits for yet. */
export function createCondition(): Condition {
  const waiting = new Set<() => void>();
  return {
    notify() {
      for (const wake of waiting) wake();
    },
    wait(signal) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const wake = (): void => {
        waiting.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      waiting.add(wake);
      signal.addEventListener("abort", wake);
      if (signal.aborted) wake();
      return promise;
    },
  };
}

/** What a loop sleeps on until there is something to do. */
export interface Bell {
  /**
   * Resolves at the next ring, or after `timeoutMs` where given. The timer keeps the process alive: what is waited for is
   * work that would otherwise be lost.
   */
  wait(timeoutMs?: number): Promise<void>;
  /** Ends the waits that there are; a ring that nobody waits for is forgotten. */
  ring(): void;
}

/** Creates a bell. */
export function createBell(): Bell {
  const waiting = new Set<() => void>();
  return {
    wait: (timeoutMs) =>
      new Promise((resolve) => {
        const timer = timeoutMs === undefined ? undefined : setTimeout(done, timeoutMs);
        function done(): void {
          clearTimeout(timer);
          waiting.delete(done);
          resolve();
        }
        waiting.add(done);
      }),
    ring() {
      for (const done of [...waiting]) done();
    },
  };
}

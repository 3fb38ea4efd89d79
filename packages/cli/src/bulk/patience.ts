import { setTimeout as delay } from "node:timers/promises";
import { ServiceError } from "@licet/platform/errors";

/** How often in a row something is tried that makes no headway. */
const MAX_ATTEMPTS = 60;
const PAUSE_MS = 1_000;
const PASSING: ReadonlySet<string> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"]);
/** What ends a stream whose reader took nothing for a while; it goes on with its token. */
const TOO_SLOW = "SUBSCRIBER_TOO_SLOW";

/** Bears what passes, such as a restart of the server, for a minute; anything else is thrown. */
export function createPatience(): { bear(error: unknown): Promise<void>; headway(): void } {
  let attempts = 0;
  return {
    async bear(error) {
      attempts++;
      const passes = error instanceof ServiceError && (PASSING.has(error.code) || error.reason === TOO_SLOW);
      if (!passes || attempts >= MAX_ATTEMPTS) throw error;
      await delay(PAUSE_MS);
    },
    headway() {
      attempts = 0;
    },
  };
}

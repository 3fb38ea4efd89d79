import type { Decider } from "./decider.ts";
import { LicetDenied } from "./errors.ts";
import type { LocalLicet } from "./licet.ts";
import type { States } from "./state.ts";
import type { Telemetry } from "./telemetry.ts";

/** How often, in milliseconds, the clock is looked at, the state told and what outlives a restart written. */
const TICK_MS = 1_000;

/** What {@link createDeciding} needs. */
export interface DecidingOptions {
  readonly mode: LocalLicet["mode"];
  readonly decider: Pick<Decider, "check" | "explain" | "counts">;
  readonly states: States;
  /** Called now and each second, until the client is closed. */
  readonly tick: () => void;
  /** Ends the rest, once nothing is called or told any more. */
  readonly end: () => Promise<void>;
  /** Reports the decisions; undefined: nobody does. */
  readonly telemetry: Pick<Telemetry, "observeDecisions"> | undefined;
  /** How old all facts are, in milliseconds; undefined: there are none, or each has an age of its own. */
  readonly stalenessMs: () => number | undefined;
}

/** The questions of a client that decides itself, all in terms of two. */
export function questionsOf({
  check,
  explain,
}: Pick<Decider, "check" | "explain">): Pick<LocalLicet, "check" | "checkMany" | "require" | "explain"> {
  return {
    check,
    explain,
    checkMany: (customerId, features, context) => features.map((feature) => check(customerId, feature, context)),
    require(customerId, feature, context) {
      const verdict = check(customerId, feature, context);
      if (!verdict.allowed) throw new LicetDenied(verdict);
      return verdict;
    },
  };
}

/** Creates a client that decides itself. */
export function createDeciding(options: DecidingOptions): LocalLicet {
  const { mode, decider, states, tick, end, telemetry, stalenessMs } = options;
  tick();
  const timer = setInterval(tick, TICK_MS).unref();
  const stopObserving = telemetry?.observeDecisions({ counts: decider.counts, stalenessMs });
  let closing: Promise<void> | undefined;

  return {
    mode,
    ...questionsOf(decider),
    get state() {
      return states.state;
    },
    on: states.on,
    ready: states.ready,
    close() {
      closing ??= (async () => {
        clearInterval(timer);
        states.close();
        stopObserving?.();
        await end();
      })();
      return closing;
    },
  };
}

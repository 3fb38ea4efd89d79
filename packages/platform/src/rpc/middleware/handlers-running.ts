import type { Attributes, ObservableResult } from "@opentelemetry/api";
import { meter } from "../../telemetry.ts";
import type { Middleware } from "../call.ts";

/** Counts the work that calls from outside have begun and not ended, and tells it as metrics. */
export interface RunningHandlers {
  /** The step that counts the calls that share `max` slots; it stands inside of the deadline, so that work that was given up still counts. */
  count(attributes: { readonly area: string; readonly kind: string }, max: number): Counting;
}

/** The step that counts. */
export type Counting = Middleware & {
  /** Says that calls from outside come here, although none of them has waited for a handler yet. */
  served(): void;
};

interface Sharing {
  readonly attributes: Attributes;
  readonly max: number;
  running: number;
}

/**
 * The gauges `rpc.server.running_handlers` and `rpc.server.max_handlers`. What runs is counted by itself and not taken from
 * the overload slots: it shows that they hold, and how near to its limit the process is.
 */
export function runningHandlers(): RunningHandlers {
  const used = new Set<Sharing>();
  const instruments = meter("licet.rpc");
  const tell = (value: (sharing: Sharing) => number) => (result: ObservableResult) => {
    for (const sharing of used) result.observe(value(sharing), sharing.attributes);
  };
  instruments
    .createObservableGauge("rpc.server.running_handlers", {
      description: "Handlers of calls from outside that have not settled, given up or not.",
      unit: "{call}",
    })
    .addCallback(tell(({ running }) => running));
  instruments
    .createObservableGauge("rpc.server.max_handlers", {
      description: "How many handlers of calls from outside may run at once.",
      unit: "{call}",
    })
    .addCallback(tell(({ max }) => max));

  return {
    count(attributes, max) {
      const sharing: Sharing = { attributes, max, running: 0 };
      // Only then: a pipeline that serves no port must not tell of its own limits under the same name.
      const served = () => void used.add(sharing);
      const step: Middleware = async (call, next) => {
        if (call.transport === "local") return next();
        served();
        sharing.running += 1;
        try {
          await next();
        } finally {
          sharing.running -= 1;
        }
      };
      return Object.assign(step, { served });
    },
  };
}

import { meter } from "@licet/platform/telemetry";
import type { Counter } from "@opentelemetry/api";

/** The business metrics of usage metering. */
export interface Metrics {
  /** Events acknowledged to their senders, repetitions included. */
  readonly accepted: Counter;
  /** Events counted, each once. */
  readonly counted: Counter;
  /** Repetitions of counted events, which changed nothing. */
  readonly duplicates: Counter;
  /** Repetitions that say something else than what was counted; the first stands. */
  readonly conflicts: Counter;
}

/** Creates the instruments. Call it after telemetry was started. */
export function createMetrics(): Metrics {
  const usage = meter("licet.usage-metering");
  return {
    accepted: usage.createCounter("license_usage_events_accepted_total", {
      description: "Usage events acknowledged to their senders, repetitions included",
    }),
    counted: usage.createCounter("license_feature_usage_total", { description: "Usage events counted, each once" }),
    duplicates: usage.createCounter("license_usage_event_duplicates_total", {
      description: "Repetitions of usage events that were counted already",
    }),
    conflicts: usage.createCounter("license_usage_event_conflicts_total", {
      description: "Repetitions of usage events that differ from what was counted",
    }),
  };
}

import { meter } from "@licet/platform/telemetry";
import type { Counter, Meter } from "@opentelemetry/api";
import type { SpoolSize } from "./store/spool.ts";

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
  /** How often it was published what a customer has used. */
  readonly levelsPublished: Counter;
  /** Takes what is spooled, for the gauges; undefined where another replica tells of it. */
  observeSpool(size: SpoolSize | undefined): void;
}

/** Creates the instruments. Call it after telemetry was started. */
export function createMetrics(): Metrics {
  const usage = meter("licet.usage-metering");
  const observeSpool = createSpoolGauges(usage);
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
    levelsPublished: usage.createCounter("license_usage_levels_published_total", {
      description: "How often it was published what a customer has used",
    }),
    observeSpool,
  };
}

function createSpoolGauges(usage: Meter): Metrics["observeSpool"] {
  let size: SpoolSize | undefined;
  let measuredAt = 0;
  usage
    .createObservableGauge("license_usage_spool_events", {
      description: "Accepted usage events that wait for the event log, told by the replica that hands them on",
    })
    .addCallback((result) => size && result.observe(size.events));
  usage
    .createObservableGauge("license_usage_spool_oldest_age_seconds", {
      description: "How long the oldest of them has waited",
      unit: "s",
    })
    .addCallback((result) => {
      if (!size) return;
      const sinceMs = size.events === 0 ? 0 : size.oldestMs + performance.now() - measuredAt;
      result.observe(sinceMs / 1_000);
    });
  return (measured) => {
    size = measured;
    measuredAt = performance.now();
  };
}

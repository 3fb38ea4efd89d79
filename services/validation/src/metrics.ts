import type { Meter } from "@opentelemetry/api";
import type { Outcome } from "./domain/decide.ts";

/** What the service counts; the names are those of product.md M1, the labels few and fixed. */
export interface ValidationMetrics {
  /** A question was answered, in so many seconds. */
  decided(outcome: Outcome, degraded: boolean, seconds: number): void;
  /** A question ended in an error of this gRPC code, after so many seconds. */
  failed(code: string, seconds: number): void;
  /** A customer was found in memory, or had to be looked up. */
  lookedUp(hit: boolean): void;
}

/** A decision from memory takes microseconds, one that asks licensing milliseconds. */
const secondsBuckets = [
  5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1,
];

/** Creates the instruments. What is observed is asked when the metrics are scraped. */
export function createMetrics(
  meter: Meter,
  observed: { cacheSize: () => number; stalenessMs: () => number },
): ValidationMetrics {
  const duration = meter.createHistogram("license_validation_duration_seconds", {
    description: "How long the service itself took to answer",
    unit: "s",
    advice: { explicitBucketBoundaries: secondsBuckets },
  });
  const requests = meter.createCounter("license_validation_requests_total", {
    description: "Questions answered, by decision and reason",
  });
  const errors = meter.createCounter("license_validation_errors_total", {
    description: "Questions that ended in an error, by gRPC code",
  });
  const violations = meter.createCounter("license_limit_violations_total", {
    description: "Limits exceeded by the values asked about, by enforcement and window",
  });
  const degraded = meter.createCounter("license_validation_degraded_total", {
    description: "Questions answered by the fail mode, on facts that were too old, by decision",
  });
  meter
    .createObservableGauge("license_validation_staleness_seconds", {
      description: "Age of the last sign of life of the event log, by the clock of licensing's database",
      unit: "s",
    })
    .addCallback((result) => result.observe(observed.stalenessMs() / 1_000));
  const hits = observeCache(meter, observed.cacheSize);

  return {
    decided({ decision, reason, exceeded }, isDegraded, seconds) {
      duration.record(seconds);
      if (isDegraded) degraded.add(1, { decision });
      requests.add(1, { decision, reason });
      for (const { limit } of exceeded) violations.add(1, { enforcement: limit.enforcement, window: limit.window });
    },
    failed(code, seconds) {
      duration.record(seconds);
      errors.add(1, { code });
    },
    lookedUp: hits,
  };
}

function observeCache(meter: Meter, cacheSize: () => number): (hit: boolean) => void {
  let hits = 0;
  let total = 0;
  let rate = 1;
  meter
    .createObservableGauge("license_cache_size", { description: "Customers in memory" })
    .addCallback((result) => result.observe(cacheSize()));
  meter
    .createObservableGauge("license_cache_hit_rate", {
      description: "Share of the customers asked about since the last scrape that were in memory",
    })
    .addCallback((result) => {
      if (total > 0) rate = hits / total;
      hits = 0;
      total = 0;
      result.observe(rate);
    });
  return (hit) => {
    total++;
    if (hit) hits++;
  };
}

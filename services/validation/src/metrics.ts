import type { Decision, Outcome, Reason } from "@licet/decide/decide";
import type { ComparedLimit } from "@licet/decide/limits";
import type { Attributes, Meter } from "@opentelemetry/api";

/** How often the answer was what. */
export interface Tally {
  readonly decision: Decision;
  readonly reason: Reason;
  readonly count: number;
}

/** What is counted of a limit that is exceeded. */
export type LimitLabels = Readonly<Record<"enforcement" | "window" | "source", string>>;

/** What is counted of a reply each time that it is told. */
export interface Counts {
  readonly outcomes: readonly Tally[];
  readonly exceeded: readonly LimitLabels[];
}

/** What is counted of the outcomes of one reply. */
export function toCounts(outcomes: readonly Outcome[]): Counts {
  const tallies = new Map<string, Tally>();
  for (const { decision, reason } of outcomes) {
    const name = `${decision} ${reason}`;
    tallies.set(name, { decision, reason, count: (tallies.get(name)?.count ?? 0) + 1 });
  }
  return {
    outcomes: [...tallies.values()],
    exceeded: outcomes.flatMap(({ exceeded }) => exceeded.map(toLabels)),
  };
}

function toLabels({ limit, source }: ComparedLimit): LimitLabels {
  return { enforcement: limit.enforcement, window: limit.window, source };
}

/** What the service counts; the names are those of product.md M1, the labels few and fixed. */
export interface ValidationMetrics {
  /** A question was answered, in so many seconds. */
  decided(outcome: Outcome, degraded: boolean, seconds: number): void;
  /** Many questions of one request were answered, in so many seconds together. */
  checked(outcomes: readonly Outcome[], degraded: boolean, seconds: number): void;
  /** A prepared reply was told, which is never degraded. It runs for every question: it must be quick. */
  answered(counts: Counts): void;
  /** A message was answered by prepared replies, in so many seconds, whatever the number of its questions. */
  took(seconds: number): void;
  /** A question ended in an error of this gRPC code, after so many seconds. */
  failed(code: string, seconds: number): void;
  /** A customer was found in memory, or had to be looked up. */
  lookedUp(hit: boolean): void;
  /** A message with this content was sent to a watcher. */
  watchTold(content: string): void;
}

/** A decision from memory takes microseconds, one that asks licensing milliseconds. */
const secondsBuckets = [
  5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1,
];

/** Creates the instruments. What is observed is asked when the metrics are scraped. */
export function createMetrics(
  meter: Meter,
  observed: { cacheSize: () => number; stalenessMs: () => number; watches: () => number },
): ValidationMetrics {
  const duration = meter.createHistogram("license_validation_duration_seconds", {
    description: "How long the service itself took to answer",
    unit: "s",
    advice: { explicitBucketBoundaries: secondsBuckets },
  });
  const count = countAnswers(meter);
  const errors = meter.createCounter("license_validation_errors_total", {
    description: "Questions that ended in an error, by gRPC code",
  });
  const violations = meter.createCounter("license_limit_violations_total", {
    description:
      "Limits exceeded by the values asked about or used up, by enforcement, window and where the value is from",
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
  meter
    .createObservableGauge("license_watches_open", { description: "Watches of entitlements that are open" })
    .addCallback((result) => result.observe(observed.watches()));
  const told = meter.createCounter("license_watch_messages_total", {
    description: "Messages sent to watchers, by content",
  });
  const hits = observeCache(meter, observed.cacheSize);

  const note = ({ decision, reason, exceeded }: Outcome, isDegraded: boolean): void => {
    if (isDegraded) degraded.add(1, { decision });
    count(decision, reason, 1);
    for (const compared of exceeded) violations.add(1, toLabels(compared));
  };
  return {
    decided(outcome, isDegraded, seconds) {
      duration.record(seconds);
      note(outcome, isDegraded);
    },
    checked(outcomes, isDegraded, seconds) {
      duration.record(seconds);
      for (const outcome of outcomes) note(outcome, isDegraded);
    },
    took: (seconds) => duration.record(seconds),
    answered({ outcomes, exceeded }) {
      for (const { decision, reason, count: times } of outcomes) count(decision, reason, times);
      for (const labels of exceeded) violations.add(1, { ...labels });
    },
    failed(code, seconds) {
      duration.record(seconds);
      errors.add(1, { code });
    },
    lookedUp: hits,
    watchTold: (content) => told.add(1, { content }),
  };
}

/** Counts answers by decision and reason. A counter of OpenTelemetry looks its attributes up by a text that it makes of them each time. */
function countAnswers(meter: Meter): (decision: Decision, reason: Reason, times: number) => void {
  const counts = new Map<Decision, Map<Reason, { value: number; readonly attributes: Attributes }>>();
  meter
    .createObservableCounter("license_validation_requests_total", {
      description: "Questions answered, by decision and reason",
    })
    .addCallback((result) => {
      for (const reasons of counts.values()) {
        for (const { value, attributes } of reasons.values()) result.observe(value, attributes);
      }
    });
  return (decision, reason, times) => {
    const reasons = counts.get(decision) ?? new Map();
    const one = reasons.get(reason);
    if (one !== undefined) one.value += times;
    else counts.set(decision, reasons.set(reason, { value: times, attributes: { decision, reason } }));
  };
}

/** Creates the gauge of how old what is known of usage is, in milliseconds where anything is. */
export function observeUsage(meter: Meter, stalenessMs: () => number | undefined): void {
  meter
    .createObservableGauge("license_validation_usage_staleness_seconds", {
      description: "Age of what is known of usage: what was accepted before is counted",
      unit: "s",
    })
    .addCallback((result) => {
      const ageMs = stalenessMs();
      if (ageMs !== undefined) result.observe(ageMs / 1_000);
    });
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

/**
 * Spans and metrics by OpenTelemetry, where the program that uses this package has its API. It is no dependency: without it
 * nothing is recorded, and nothing costs anything.
 */
import type { Attributes, Context, Histogram, Meter, ObservableResult, Span, Tracer } from "@opentelemetry/api";
import { createDecisionCounts, type DecisionCount } from "./decision-counts.ts";
import { LicetError } from "./errors.ts";
import type { TrackCounts } from "./track/tracker.ts";

/** Headers by which a call carries its trace on. */
export type TraceHeaders = Readonly<Record<string, string>>;

/** What a client that decides itself tells of it. */
export interface DecisionSource {
  /** How often it has decided what. */
  counts(): Iterable<DecisionCount>;
  /** How old its facts are, in milliseconds; undefined: that can't be told of all at once. */
  stalenessMs(): number | undefined;
}

/** What reports to OpenTelemetry. */
export interface Telemetry {
  /**
   * Makes a call inside a client span, and measures it in `rpc.client.call.duration`, its repetitions included.
   *
   * @param method `<service>/<method>`
   * @param run makes it, with headers to send along
   */
  call<T>(method: string, run: (headers: TraceHeaders) => Promise<T>): Promise<T>;
  /** Reports what becomes of usage events, each time metrics are collected. @returns what ends that. */
  observeUsage(counts: () => TrackCounts): () => void;
  /**
   * Reports what is decided in-process, each time metrics are collected: as counts and not as spans, because a span
   * costs far more than the decision. @returns what ends that.
   */
  observeDecisions(source: DecisionSource): () => void;
}

type Api = typeof import("@opentelemetry/api");

/** The name of tracer and meter. */
const SCOPE = "@licet/sdk";
const NO_HEADERS: TraceHeaders = {};
/** Of all clients of the process: instruments of one name are one, whoever creates them, so each tells of all. */
const observed = { usage: new Set<() => TrackCounts>(), decisions: new Set<DecisionSource>() };
/** Bounds of the histogram, in seconds. */
const DURATION_BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** What is made of the API once it is there. */
interface Instruments {
  readonly api: Api;
  readonly tracer: Tracer;
  readonly duration: Histogram;
}

/**
 * Creates the telemetry of a client. The API is looked for at once and is there a moment later; meters and tracers have to be
 * registered by then, as the API wants it.
 *
 * @param load loads the API; rejects where it is not installed
 */
export function createTelemetry(load: () => Promise<Api> = () => import("@opentelemetry/api")): Telemetry {
  let instruments: Instruments | undefined;
  const loading = load().then(
    (api) => {
      instruments = createInstruments(api);
    },
    // It is not installed: that is how telemetry is left out.
    () => undefined,
  );
  void loading;
  return {
    call: (method, run) => (instruments === undefined ? run(NO_HEADERS) : inSpan(instruments, method, run)),
    observeUsage(counts) {
      observed.usage.add(counts);
      return () => observed.usage.delete(counts);
    },
    observeDecisions(source) {
      observed.decisions.add(source);
      return () => observed.decisions.delete(source);
    },
  };
}

function createInstruments(api: Api): Instruments {
  const meter = api.metrics.getMeter(SCOPE);
  const duration = meter.createHistogram("rpc.client.call.duration", {
    description: "How long calls to Licet take, their repetitions included.",
    unit: "s",
    advice: { explicitBucketBoundaries: DURATION_BOUNDS },
  });
  observeUsage(meter);
  observeDecisions(meter);
  return { api, tracer: api.trace.getTracer(SCOPE), duration };
}

function observeUsage(meter: Meter): void {
  const sum = (name: keyof TrackCounts): number =>
    [...observed.usage].reduce((total, counts) => total + counts()[name], 0);
  const events = meter.createObservableCounter("licet.sdk.usage.events", {
    description: "What became of usage events.",
    unit: "{event}",
  });
  events.addCallback((result: ObservableResult) => {
    for (const outcome of ["delivered", "refused", "lost"] as const) result.observe(sum(outcome), { outcome });
    result.observe(sum("turnedAway"), { outcome: "turned_away" });
  });
  const waiting = meter.createObservableUpDownCounter("licet.sdk.usage.waiting", {
    description: "Usage events that wait to be delivered.",
    unit: "{event}",
  });
  waiting.addCallback((result: ObservableResult) => result.observe(sum("waiting")));
}

function observeDecisions(meter: Meter): void {
  const decisions = meter.createObservableCounter("licet.sdk.decisions", {
    description: "Decisions made in this process.",
    unit: "{decision}",
  });
  decisions.addCallback((result: ObservableResult) => {
    const total = createDecisionCounts();
    for (const source of observed.decisions) for (const one of source.counts()) total.of(one).count += one.count;
    for (const { count, ...attributes } of total.all()) result.observe(count, attributes);
  });
  const staleness = meter.createObservableGauge("licet.sdk.facts.staleness", {
    description: "How old the facts are that decisions are made by; of several clients the oldest.",
    unit: "s",
  });
  staleness.addCallback((result: ObservableResult) => {
    const ages = [...observed.decisions].flatMap((source) => source.stalenessMs() ?? []);
    if (ages.length > 0) result.observe(Math.max(...ages) / 1_000);
  });
}

async function inSpan<T>(
  { api, tracer, duration }: Instruments,
  method: string,
  run: (headers: TraceHeaders) => Promise<T>,
): Promise<T> {
  const startedAt = performance.now();
  const attributes: Attributes = { "rpc.system.name": "grpc", "rpc.method": method };
  const span = tracer.startSpan(method, { kind: api.SpanKind.CLIENT, attributes });
  const inside: Context = api.trace.setSpan(api.context.active(), span);
  const headers: Record<string, string> = {};
  api.propagation.inject(inside, headers);
  let code = "OK";
  try {
    return await api.context.with(inside, run, undefined, headers);
  } catch (error) {
    code = error instanceof LicetError ? error.code : "UNKNOWN";
    fail(api, span, code, error);
    throw error;
  } finally {
    const outcome = { ...attributes, "rpc.status_code": code, ...(code !== "OK" && { "error.type": code }) };
    duration.record((performance.now() - startedAt) / 1_000, outcome);
    span.setAttribute("rpc.status_code", code);
    span.end();
  }
}

/** To a caller every status but OK is a failure (semantic conventions of OpenTelemetry for gRPC). */
function fail(api: Api, span: Span, code: string, error: unknown): void {
  span.setStatus({ code: api.SpanStatusCode.ERROR, message: error instanceof Error ? error.message : String(error) });
  span.setAttribute("error.type", code);
}

import { setImmediate as turn } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import * as api from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { LicetError } from "./errors.ts";
import { createLicet } from "./index.ts";
import { createTelemetry, type TraceHeaders } from "./telemetry.ts";
import { startTestServer } from "./testing.ts";

const spans = new InMemorySpanExporter();
let figures: InMemoryMetricExporter;
let meters: MeterProvider;

beforeEach(() => {
  figures = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  meters = new MeterProvider({
    readers: [new PeriodicExportingMetricReader({ exporter: figures, exportIntervalMillis: 3_600_000 })],
  });
  api.metrics.setGlobalMeterProvider(meters);
  api.trace.setGlobalTracerProvider(
    new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter: spans })] }),
  );
  api.context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  api.propagation.setGlobalPropagator(new W3CTraceContextPropagator());
});

afterEach(async () => {
  await meters.shutdown();
  for (const part of [api.metrics, api.trace, api.context, api.propagation]) part.disable();
  spans.reset();
});

/** The data points of a metric: value (of a histogram the count) by attributes. */
async function collect(name: string): Promise<[attributes: api.Attributes, value: number][]> {
  await meters.forceFlush();
  const found = figures.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics));
  const last = found.filter(({ descriptor }) => descriptor.name === name).at(-1);
  return (last?.dataPoints ?? []).map(({ attributes, value }) => [
    attributes,
    typeof value === "number" ? value : value.count,
  ]);
}

const method = "licet.validation.v1.ValidationService/ValidateFeature";

test("a call is a client span that goes on in what is sent, and is measured", async () => {
  const telemetry = createTelemetry();
  await turn();
  let sent: TraceHeaders = {};
  const answered = await api.trace.getTracer("user").startActiveSpan("order", async (order) => {
    const answer = await telemetry.call(method, async (headers) => {
      sent = headers;
      return 42;
    });
    order.end();
    return answer;
  });
  expect(answered).toBe(42);
  const away = new LicetError({ code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE", message: "no connection" });
  await expect(telemetry.call(method, () => Promise.reject(away))).rejects.toBe(away);

  const [call, order, failed] = spans.getFinishedSpans();
  expect(call).toMatchObject({
    name: method,
    kind: api.SpanKind.CLIENT,
    attributes: { "rpc.system.name": "grpc", "rpc.method": method, "rpc.status_code": "OK" },
    parentSpanContext: { spanId: order?.spanContext().spanId },
  });
  const { traceId, spanId } = call?.spanContext() ?? {};
  expect(sent.traceparent).toBe(`00-${traceId}-${spanId}-01`);
  expect(failed).toMatchObject({
    status: { code: api.SpanStatusCode.ERROR, message: "no connection" },
    attributes: { "rpc.status_code": "UNAVAILABLE", "error.type": "UNAVAILABLE" },
  });
  expect(await collect("rpc.client.call.duration")).toEqual([
    [expect.objectContaining({ "rpc.status_code": "OK" }), 1],
    [expect.objectContaining({ "rpc.status_code": "UNAVAILABLE" }), 1],
  ]);
});

test("usage of all trackers is told together, until they end", async () => {
  const telemetry = createTelemetry();
  await turn();
  const zero = { inherited: 0, tracked: 0, turnedAway: 0, delivered: 0, refused: 0, lost: 0, waiting: 0, retries: 0 };
  const end = telemetry.observeUsage(() => ({ ...zero, delivered: 5, turnedAway: 2, waiting: 3 }));
  // Another client of the process: its instruments have the same names.
  const endOther = createTelemetry().observeUsage(() => ({ ...zero, delivered: 1, lost: 4 }));
  await turn();
  expect(await collect("licet.sdk.usage.events")).toEqual([
    [{ outcome: "delivered" }, 6],
    [{ outcome: "refused" }, 0],
    [{ outcome: "lost" }, 4],
    [{ outcome: "turned_away" }, 2],
  ]);
  expect(await collect("licet.sdk.usage.waiting")).toEqual([[{}, 3]]);
  end();
  expect(await collect("licet.sdk.usage.waiting")).toEqual([[{}, 0]]);
  endOther();
});

test("what clients decide is counted by feature, decision and reason, those that nobody has in one", async () => {
  const server = await startTestServer({
    products: { trading: { egx_access: {} } },
    customers: { "nile-brokers": [{ product: "trading" }] },
  });
  const options = { mode: "local", address: server.address, apiKey: server.apiKey } as const;
  const clients = [createLicet(options), createLicet(options)];
  try {
    await Promise.all(clients.map((client) => client.ready()));
    for (const client of clients) {
      for (let times = 0; times < 5; times++) client.check("nile-brokers", "egx_access");
      client.check("nile-brokers", "egx_access", { users: 5 });
      client.explain("nile-brokers", "egx_access");
      client.checkMany("nobody", ["egx_access", "egx_access"]);
    }
    expect(await collect("licet.sdk.decisions")).toEqual([
      [{ feature: "egx_access", decision: "ALLOW", reason: "ALLOWED" }, 12],
      [{ feature: "egx_access", decision: "DENY", reason: "NO_LICENSE" }, 4],
    ]);
    const [[, ageS] = []] = await collect("licet.sdk.facts.staleness");
    expect(ageS).toBeGreaterThanOrEqual(0);
    expect(ageS).toBeLessThan(30);
    expect(spans.getFinishedSpans()).toEqual([]);

    for (let index = 0; index < 1_100; index++) clients[0]?.check("nile-brokers", `feature_${index}`);
    const counts = new Map((await collect("licet.sdk.decisions")).map(([{ feature }, count]) => [feature, count]));
    expect(counts.size).toBe(1_001);
    expect(counts.get("_OTHER")).toBe(101);
  } finally {
    for (const client of clients) await client.close();
    await server.close();
  }
  // The reader goes on telling the last value; it gets no older once nobody observes it.
  const last = await collect("licet.sdk.facts.staleness");
  expect(await collect("licet.sdk.facts.staleness")).toEqual(last);
});

test("without the API a call is just made", async () => {
  const telemetry = createTelemetry(() => Promise.reject(new Error("Cannot find package '@opentelemetry/api'")));
  await turn();
  expect(await telemetry.call(method, async (headers) => headers)).toEqual({});
  expect(spans.getFinishedSpans()).toEqual([]);
});

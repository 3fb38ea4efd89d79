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
import { createTelemetry, type TraceHeaders } from "./telemetry.ts";

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
  telemetry.observeUsage(() => ({ ...zero, delivered: 1, lost: 4 }));
  expect(await collect("licet.sdk.usage.events")).toEqual([
    [{ outcome: "delivered" }, 6],
    [{ outcome: "refused" }, 0],
    [{ outcome: "lost" }, 4],
    [{ outcome: "turned_away" }, 2],
  ]);
  expect(await collect("licet.sdk.usage.waiting")).toEqual([[{}, 3]]);
  end();
  expect(await collect("licet.sdk.usage.waiting")).toEqual([[{}, 0]]);
});

test("without the API a call is just made", async () => {
  const telemetry = createTelemetry(() => Promise.reject(new Error("Cannot find package '@opentelemetry/api'")));
  await turn();
  expect(await telemetry.call(method, async (headers) => headers)).toEqual({});
  expect(spans.getFinishedSpans()).toEqual([]);
});

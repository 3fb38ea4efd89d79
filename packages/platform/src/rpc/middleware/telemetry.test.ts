import { createClient } from "@connectrpc/connect";
import { afterEach, expect, test } from "@jest/globals";
import { context, propagation, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { platformError } from "../../errors.ts";
import { startTelemetry, type Telemetry } from "../../telemetry.ts";
import { type EchoHandlers, echoBinding, echoKeys, echoPipeline } from "../../testing/echo-server.ts";
import { EchoService } from "../../testing/echo-service.ts";
import { createLocalTransport } from "../local.ts";

let telemetry: Telemetry | undefined;

afterEach(async () => {
  await telemetry?.stop();
  telemetry = undefined;
  for (const api of [trace, context, propagation]) api.disable();
});

function echoClient(handlers: Partial<EchoHandlers>) {
  const headers = { authorization: `Bearer ${echoKeys.allowed}` };
  const bindings = [echoBinding(handlers)];
  return createClient(EchoService, createLocalTransport({ bindings, pipeline: echoPipeline(), headers }));
}

test("every call is in the histogram, by method and outcome, and counted while it runs", async () => {
  telemetry = await startTelemetry({ serviceName: "test", version: "0", host: "127.0.0.1", metricsPort: 0 });
  const { port } = telemetry;
  const scrape = async () => (await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()).split("\n");
  let during: string[] = [];
  const client = echoClient({
    async batch() {
      during = await scrape();
      return {};
    },
  });
  await client.batch({ text: "x" });
  await client.echo({ text: "x" });
  await client.echo({ text: "" }).catch(() => {});

  const labels = (method: string) => `rpc_system_name="grpc",rpc_method="testing.v1.EchoService/${method}"`;
  expect(during).toContain(`rpc_server_active_calls{${labels("Batch")}} 1`);
  const after = await scrape();
  expect(after).toContain(`rpc_server_active_calls{${labels("Batch")}} 0`);
  expect(after).toContain(`rpc_server_call_duration_count{${labels("Echo")},rpc_status_code="OK"} 1`);
  const failed = `rpc_status_code="INVALID_ARGUMENT",error_type="INVALID_ARGUMENT"`;
  expect(after).toContain(`rpc_server_call_duration_count{${labels("Echo")},${failed}} 1`);
});

test("every call is a server span of its caller's trace, in which its handler works", async () => {
  const exporter = new InMemorySpanExporter();
  const spanProcessors = [new SimpleSpanProcessor({ exporter })];
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors }));
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  const inside: (string | undefined)[] = [];
  const client = echoClient({
    async echo() {
      inside.push(trace.getActiveSpan()?.spanContext().spanId);
      return {};
    },
    hurry: () => Promise.reject(platformError("OVERLOADED", "full")),
  });

  const caller = trace.getTracer("test").startSpan("caller");
  await context.with(trace.setSpan(context.active(), caller), async () => {
    await client.echo({ text: "x" });
    await client.echo({ text: "" }).catch(() => {});
    await client.hurry({ text: "x" }).catch(() => {});
  });

  const spans = exporter.getFinishedSpans();
  expect(spans.map(({ name, status }) => [name, status.code])).toEqual([
    ["testing.v1.EchoService/Echo", SpanStatusCode.UNSET],
    ["testing.v1.EchoService/Echo", SpanStatusCode.UNSET],
    ["testing.v1.EchoService/Hurry", SpanStatusCode.ERROR],
  ]);
  for (const span of spans) {
    expect(span.kind).toBe(SpanKind.SERVER);
    expect(span.parentSpanContext?.spanId).toBe(caller.spanContext().spanId);
  }
  expect(inside).toEqual([spans[0]?.spanContext().spanId]);
});

import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { context, type Meter, metrics, propagation, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { PrometheusExporter } from "@opentelemetry/exporter-prometheus";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { type Resource, resourceFromAttributes } from "@opentelemetry/resources";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { AlwaysOffSampler, BatchSpanProcessor, ParentBasedSampler, TracerProvider } from "@opentelemetry/sdk-trace";
import { ATTR_SERVICE_NAME, ATTR_SERVICE_VERSION } from "@opentelemetry/semantic-conventions";
import { listenError } from "./rpc/server.ts";

/** What {@link startTelemetry} needs to know. */
export interface TelemetryOptions {
  /** `service.name` of every span and metric. */
  serviceName: string;
  /** `service.version` of every span and metric. */
  version: string;
  /** Full URL for spans in OTLP/HTTP, such as `http://collector:4318/v1/traces`; without it no span is recorded. */
  otlpEndpoint?: string;
  /** The address that the metrics port listens on. */
  host: string;
  /** The port of `GET /metrics`; 0 takes a free one. */
  metricsPort: number;
}

/** The running telemetry of this process. */
export interface Telemetry {
  /** The port that serves `GET /metrics`. */
  readonly port: number;
  /** Sends what is still buffered and gives up the port and the process-wide registrations. */
  stop(): Promise<void>;
}

let recording = false;

/**
 * Registers OpenTelemetry for the whole process: metrics, served to Prometheus
 * under exactly the names they were given (only a counter without the suffix
 * gets `_total`), traces with W3C propagation, and the context they travel in.
 *
 * Without `otlpEndpoint` a trace that starts here is not recorded, but it has
 * ids, so log lines and outgoing calls still carry them; a caller's own
 * sampling decision is passed on unchanged.
 *
 * @throws {Error} with the `code` (`EADDRINUSE`, `EACCES` …) when the metrics
 *   port can't be had, or when telemetry already runs in this process.
 */
export async function startTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  const resource = resourceFromAttributes({
    [ATTR_SERVICE_NAME]: options.serviceName,
    [ATTR_SERVICE_VERSION]: options.version,
  });
  const exporter = new PrometheusExporter({ preventServerStart: true, withoutScopeInfo: true });
  const meters = new MeterProvider({ resource, readers: [exporter] });
  const tracers = createTracerProvider(resource, options.otlpEndpoint);
  const server = await serveMetrics(exporter, options);

  if (!metrics.setGlobalMeterProvider(meters)) {
    await close(server);
    throw new Error("telemetry already runs in this process; stop it before starting it again");
  }
  trace.setGlobalTracerProvider(tracers);
  recording = options.otlpEndpoint !== undefined;
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());

  return {
    // A string only for pipes, null only before listening.
    port: (server.address() as AddressInfo).port,
    async stop() {
      recording = false;
      for (const api of [metrics, trace, context, propagation]) api.disable();
      await Promise.all([close(server), tracers.shutdown(), meters.shutdown()]);
    },
  };
}

/**
 * The meter of one part of the program. Create instruments after
 * {@link startTelemetry}: before it, the OpenTelemetry API hands out
 * instruments that stay without effect.
 */
export function meter(name: string): Meter {
  return metrics.getMeter(name);
}

/** Whether traces that begin in this process are recorded. */
export function recordsTraces(): boolean {
  return recording;
}

/** The `traceparent` header of the current span, or undefined outside of one. */
export function currentTraceparent(): string | undefined {
  const carrier: { traceparent?: string } = {};
  propagation.inject(context.active(), carrier);
  return carrier.traceparent;
}

function createTracerProvider(resource: Resource, otlpEndpoint: string | undefined): TracerProvider {
  if (otlpEndpoint === undefined) {
    return new TracerProvider({
      resource,
      sampler: new ParentBasedSampler({ root: new AlwaysOffSampler() }),
    });
  }
  const exporter = new OTLPTraceExporter({ url: otlpEndpoint });
  return new TracerProvider({ resource, spanProcessors: [new BatchSpanProcessor({ exporter })] });
}

async function serveMetrics(exporter: PrometheusExporter, { host, metricsPort }: TelemetryOptions): Promise<Server> {
  const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
    if (request.url?.split("?")[0] !== "/metrics") {
      response.writeHead(404, { "content-type": "text/plain" }).end("only /metrics is here\n");
    } else if (request.method !== "GET") {
      response.writeHead(405, { allow: "GET" }).end();
    } else {
      exporter.getMetricsRequestHandler(request, response);
    }
  });
  server.listen({ host, port: metricsPort });
  try {
    await once(server, "listening");
  } catch (error) {
    // `once` rejects with what the server emitted as its error.
    throw listenError(host, metricsPort, error as Error);
  }
  return server;
}

async function close(server: Server): Promise<void> {
  server.close();
  server.closeAllConnections();
  await once(server, "close");
}

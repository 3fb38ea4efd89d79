import type { IncomingHttpHeaders } from "node:http2";
import {
  type Attributes,
  context,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import {
  ATTR_ERROR_TYPE,
  ATTR_RPC_METHOD,
  ATTR_RPC_STATUS_CODE,
  ATTR_RPC_SYSTEM_NAME,
  METRIC_RPC_SERVER_CALL_DURATION,
  RPC_SYSTEM_NAME_VALUE_GRPC,
} from "@opentelemetry/semantic-conventions";
import { type Code, ServiceError } from "../../errors.ts";
import { meter, recordsTraces } from "../../telemetry.ts";
import type { Middleware, ServerCall, TransportName } from "../call.ts";
import type { ShortcutSteps } from "../shortcut.ts";

/** `rpc.system.name` by transport; an in-process call behaves as the gRPC call that it replaces. */
const systemName: Readonly<Record<TransportName, string>> = {
  grpc: RPC_SYSTEM_NAME_VALUE_GRPC,
  "grpc-web": RPC_SYSTEM_NAME_VALUE_GRPC,
  local: RPC_SYSTEM_NAME_VALUE_GRPC,
  connect: "connectrpc",
};

/** The codes that mean a fault of the server; the rest is the caller's (semantic conventions of OpenTelemetry for gRPC). */
const serverFaults: ReadonlySet<Code> = new Set([
  "UNKNOWN",
  "DEADLINE_EXCEEDED",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
]);

/** Bounds of the duration histogram, in seconds: fine below a millisecond, where validations answer. */
const durationBounds = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

/** The calls of one method in one RPC system. Kept, so that a call does not build its attributes anew. */
interface Series {
  readonly attributes: Attributes;
  /** The attributes with each outcome seen so far. */
  readonly outcomes: Map<Code | "OK", Attributes>;
  /** Calls under way. */
  active: number;
}

/** The step that measures. */
export type Measuring = Middleware & {
  /** What it does for calls over gRPC of this method that are answered without passing through it, all of them well. */
  shortcut(name: string): Pick<ShortcutSteps, "recorded" | "answered">;
};

/**
 * Measures every call: a server span that continues the caller's trace, the
 * histogram `rpc.server.call.duration` in seconds, and the number of calls
 * under way. The outermost step, so it sees what the caller sees.
 */
export function telemetry(): Measuring {
  const tracer = trace.getTracer("licet.rpc");
  const instruments = meter("licet.rpc");
  const all = new Map<string, Series>();
  const duration = instruments.createHistogram(METRIC_RPC_SERVER_CALL_DURATION, {
    description: "How long calls take from their first message to their answer.",
    unit: "s",
    advice: { explicitBucketBoundaries: durationBounds },
  });
  const active = instruments.createObservableUpDownCounter("rpc.server.active_calls", {
    description: "Calls under way.",
    unit: "{call}",
  });
  active.addCallback((result) => {
    for (const series of all.values()) result.observe(series.active, series.attributes);
  });

  const step: Middleware = async (call, next) => {
    const startedAt = performance.now();
    const series = seriesOf(all, call);
    const parent = parentOf(call);
    const span = tracer.startSpan(call.name, { kind: SpanKind.SERVER, attributes: series.attributes }, parent);
    series.active += 1;
    let code: Code | "OK" = "OK";
    try {
      await context.with(trace.setSpan(parent, span), next);
    } catch (error) {
      code = error instanceof ServiceError ? error.code : "UNKNOWN";
      if (serverFaults.has(code)) markFault(span, code, error);
      throw error;
    } finally {
      series.active -= 1;
      duration.record((performance.now() - startedAt) / 1_000, outcomeOf(series, code));
      span.setAttribute(ATTR_RPC_STATUS_CODE, code);
      span.end();
    }
  };
  return Object.assign(step, {
    shortcut(name: string) {
      const outcome = outcomeOf(seriesOf(all, { transport: "grpc", name }), "OK");
      return {
        recorded: ({ traceparent }: IncomingHttpHeaders) =>
          traceparent === undefined ? recordsTraces() : !unsampled.test(String(traceparent)),
        answered: (durationMs: number) => duration.record(durationMs / 1_000, outcome),
      };
    },
  });
}

/** A caller's trace that nobody records (W3C Trace Context: the lowest bit of the flags). */
const unsampled = /-[0-9a-f][02468ace]$/;

function seriesOf(all: Map<string, Series>, { transport, name }: Pick<ServerCall, "transport" | "name">): Series {
  const system = systemName[transport];
  const key = `${system} ${name}`;
  let series = all.get(key);
  if (series === undefined) {
    const attributes = { [ATTR_RPC_SYSTEM_NAME]: system, [ATTR_RPC_METHOD]: name };
    series = { attributes, outcomes: new Map(), active: 0 };
    all.set(key, series);
  }
  return series;
}

function outcomeOf({ attributes, outcomes }: Series, code: Code | "OK"): Attributes {
  let outcome = outcomes.get(code);
  if (outcome === undefined) {
    outcome = { ...attributes, [ATTR_RPC_STATUS_CODE]: code };
    if (code !== "OK") outcome[ATTR_ERROR_TYPE] = code;
    outcomes.set(code, outcome);
  }
  return outcome;
}

/** The caller's trace; a call in this process continues the trace it was made in. */
function parentOf(call: ServerCall) {
  if (call.transport === "local") return context.active();
  if (!call.headers.has("traceparent")) return ROOT_CONTEXT;
  return propagation.extract(ROOT_CONTEXT, call.headers, {
    get: (headers, key) => headers.get(key) ?? undefined,
    keys: (headers) => [...headers.keys()],
  });
}

function markFault(span: Span, code: Code, error: unknown): void {
  span.setAttribute(ATTR_ERROR_TYPE, code);
  span.setStatus({ code: SpanStatusCode.ERROR, message: error instanceof Error ? error.message : code });
}

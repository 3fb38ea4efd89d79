import { trace } from "@opentelemetry/api";
import { type DestinationStream, destination, type Level, type Logger, pino } from "pino";

export type { Logger } from "pino";

/** Names whose values never reach a log line. */
const secretNames = ["authorization", "x-api-key", "apiKey", "key", "secret", "password"] as const;

/** How deep below the logged object a secret name is still looked for. */
const maxRedactionDepth = 3;

/**
 * Creates a logger that writes one JSON object a line, with the `trace_id` and
 * `span_id` of the current span, to standard error unless another destination
 * is given. Values under the names of credentials are replaced by
 * `[redacted]`, down to three levels below the logged object; text inside a
 * message is not searched, so never put a secret there.
 */
export function createLogger(options: {
  level: Level | "silent";
  name: string;
  destination?: DestinationStream;
}): Logger {
  return pino(
    {
      level: options.level,
      name: options.name,
      redact: { paths: redactedPaths(), censor: "[redacted]" },
      mixin: traceFields,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    options.destination ?? destination(2),
  );
}

function redactedPaths(): string[] {
  const paths: string[] = [];
  for (let depth = 0; depth <= maxRedactionDepth; depth++) {
    const above = "*.".repeat(depth);
    for (const name of secretNames) {
      // A name with a dash is only reachable in brackets.
      paths.push(name.includes("-") ? `${above.replace(/\.$/, "")}["${name}"]` : `${above}${name}`);
    }
  }
  return paths;
}

function traceFields(): { trace_id?: string; span_id?: string } {
  const context = trace.getActiveSpan()?.spanContext();
  return context === undefined ? {} : { trace_id: context.traceId, span_id: context.spanId };
}

import { context, propagation } from "@opentelemetry/api";
import { platformError, ServiceError } from "../errors.ts";

/** What `new Headers` takes. */
export type HeadersLike = ConstructorParameters<typeof Headers>[0];

/** What goes out beside the message: the channel's headers, those of the call over them, and the current trace. */
export function outgoing(base: HeadersLike, own: HeadersLike): Headers {
  const headers = new Headers(base);
  new Headers(own).forEach((value, name) => void headers.set(name, value));
  propagation.inject(context.active(), headers, { set: (carrier, key, value) => carrier.set(key, value) });
  return headers;
}

/** The error of a call that its own caller ended: the signal's reason, when it is one of ours. */
export function cancelled(signal: AbortSignal): ServiceError {
  const reason: unknown = signal.reason;
  return reason instanceof ServiceError
    ? reason
    : platformError("CANCELLED", "the call was cancelled", { cause: reason });
}

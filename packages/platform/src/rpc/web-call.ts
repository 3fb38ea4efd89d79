import type { DescMessage } from "@bufbuild/protobuf";
import { Code as ConnectCode, ConnectError, createContextKey } from "@connectrpc/connect";
import { codeNumber, platformError, type ServiceError, toDetails } from "../errors.ts";
import { malformed, tooLarge } from "./codec.ts";
import type { Route } from "./pipeline.ts";

/** The longest deadline that a caller of the web port may ask for, in milliseconds. */
export const MAX_TIMEOUT_MS = 30_000;

/** The caller's address and port, on its way through connect's handlers. */
export const peerKey = createContextKey("unknown", { description: "peer" });

/** The error as connect's protocols send it, details included. */
export function toConnectError(error: ServiceError): ConnectError {
  return new ConnectError(error.message, codeNumber[error.code] as ConnectCode, undefined, toDetails(error));
}

/** The error that stands for what connect's parsers object to in a request. */
export function fromParser({ method, maxRequestBytes }: Route, error: unknown): ServiceError {
  const { code, rawMessage, cause } = ConnectError.from(error, ConnectCode.InvalidArgument);
  switch (code) {
    case ConnectCode.ResourceExhausted:
      return tooLarge(maxRequestBytes);
    case ConnectCode.Canceled:
    case ConnectCode.Aborted:
      return platformError("CANCELLED", "the caller cancelled the call");
    default:
      return malformed(method.input as DescMessage, cause ?? new Error(rawMessage));
  }
}

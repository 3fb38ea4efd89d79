import type { CallOptions } from "@connectrpc/connect";
import { presentedKey, TENANT_HEADER } from "@licet/platform/credentials";
import type { Call } from "@licet/platform/rpc/call";
import { within } from "@licet/platform/rpc/client";

/**
 * For a call to another service that does a call's whole work: by the caller's own credential, so that the other service
 * grants the caller what it would grant it anyway and notes who it was, and with the time that is left.
 */
export function asCaller(call: Call): CallOptions {
  const tenant = call.headers.get(TENANT_HEADER);
  return {
    ...within(call),
    headers: {
      // Always set: a transport's own credential, which may do more, must not stand in for the caller's.
      authorization: `Bearer ${presentedKey(call.headers)}`,
      ...(tenant !== null && { [TENANT_HEADER]: tenant }),
    },
  };
}

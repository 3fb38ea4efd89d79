import type { CallOptions } from "@connectrpc/connect";
import { TENANT_HEADER } from "@licet/platform/credentials";
import type { Call } from "@licet/platform/rpc/call";
import { within } from "@licet/platform/rpc/client";

/** For calls to other services while serving one: for the same tenant, with the time that is left. */
export function onBehalfOf(call: Call): CallOptions {
  return { ...within(call), headers: { [TENANT_HEADER]: call.tenant } };
}

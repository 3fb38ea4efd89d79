import type { Transport } from "@connectrpc/connect";
import { scopesOf } from "@licet/licensing/domain/roles";
import { PLATFORM_TENANT, TENANT_HEADER } from "@licet/platform/credentials";
import type { Logger } from "@licet/platform/logging";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";

/** A transport that acts for a tenant in all roles; for the operator without one. */
export type Insider = (tenant?: string) => Transport;

/**
 * Lets this process call its own services to load the demo data and issue keys. It goes through a pipeline of its own, on
 * no port, so nothing has to be proved: whoever can make such a call is this process.
 */
export function createInsider(bindings: readonly ServiceBinding[], logger: Logger): Insider {
  const scopes = new Set(Object.values(scopesOf).flat());
  const pipeline = createPipeline({
    authenticate: async (headers) => ({
      id: "standalone",
      tenant: headers.get(TENANT_HEADER) ?? PLATFORM_TENANT,
      role: "standalone",
      scopes,
      kind: "mesh",
    }),
    maxConcurrent: 100,
    maxStreams: 1,
    logger,
  });
  return (tenant = PLATFORM_TENANT) =>
    createLocalTransport({ bindings, pipeline, headers: { [TENANT_HEADER]: tenant } });
}

import { createLicensing } from "@licet/licensing";
import { openBus } from "@licet/mesh/bus";
import { createLicensingCredentials } from "@licet/mesh/credentials";
import type { Credentials } from "@licet/platform/credentials";
import type { Logger } from "@licet/platform/logging";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { createInsider } from "@licet/standalone/insider";
import { ensureKeys } from "@licet/standalone/keys";
import type { ApiKeys } from "@licet/standalone/run-file";
import { createUsageMetering } from "@licet/usage-metering";
import { acceptLog as acceptEventLog } from "@licet/usage-metering/log";
import type { Shared } from "./services.ts";

const MAX_CONNECTIONS = 4;

/** What {@link loadMesh} needs. */
export interface LoadOptions {
  readonly shared: Shared;
  /** Whether the demo data is loaded. */
  readonly seed: boolean;
  /** Whether usage is counted on from this event log, whichever it was before. */
  readonly acceptLog: boolean;
  /** Keys of an earlier run; those that still work are kept. */
  readonly known: ApiKeys;
  readonly logger: Logger;
  /** Aborts when the load is to be given up. */
  readonly signal: AbortSignal;
}

/**
 * Loads the demo data where wanted, and issues API keys. It writes as the services do, through services of its own in
 * this process that publish and count nothing: the replicas do that.
 *
 * @returns the keys, by tenant and role.
 */
export async function loadMesh({ shared, seed, acceptLog, known, logger, signal }: LoadOptions): Promise<ApiKeys> {
  const { databases, secrets, meshKey } = shared;
  const roleUrls = (name: "licensing" | "metering") => ({
    appUrl: databases.url(name, "licet_app"),
    systemUrl: databases.url(name, "licet_system"),
  });
  const bus = await openBus(shared.bus, "licet-mesh", logger);
  const limits = { maxConnections: MAX_CONNECTIONS };
  const licensing = createLicensing({ database: roleUrls("licensing"), ...limits, ...secrets }, { bus, logger });
  const metering = createUsageMetering({ database: roleUrls("metering"), ...limits }, { bus, logger });
  try {
    if (acceptLog) await acceptEventLog(roleUrls("metering").systemUrl, await bus.id());
    const insider = createInsider([...licensing.bindings, ...metering.bindings], logger);
    const seeded = seed
      ? await (await import("@licet/standalone/seed")).seed({ insider, now: new Date(), signal })
      : {};
    const pipeline = createPipeline({
      authenticate: (headers) => credentials.authenticate(headers),
      maxConcurrent: 100,
      maxStreams: 1,
      logger,
    });
    const headers = { authorization: `Bearer ${meshKey}` };
    const credentials: Credentials = createLicensingCredentials({
      licensing: createLocalTransport({ bindings: licensing.bindings, pipeline, headers }),
      meshKey,
      logger,
    });
    return await ensureKeys({
      known: { ...known, ...seeded },
      tenants: seed ? (await import("@licet/standalone/demo")).demoTenants.map(({ tenantId }) => tenantId) : [],
      insider,
      authenticate: (given) => credentials.authenticate(given),
      ensureOperatorKey: (key) => licensing.ensureOperatorKey(key),
    });
  } finally {
    await licensing.stop();
    await metering.stop();
    await bus.stop();
  }
}

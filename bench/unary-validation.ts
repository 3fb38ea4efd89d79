import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";
import { createRouterTransport } from "@connectrpc/connect";
import { LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { createLicensingCredentials } from "@licet/mesh/credentials";
import { generateApiKey } from "@licet/platform/credentials";
import type { EventBus } from "@licet/platform/events/bus";
import { createLogger } from "@licet/platform/logging";
import { createGrpcServer } from "@licet/platform/rpc/grpc";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { startTelemetry } from "@licet/platform/telemetry";
import { createValidation } from "@licet/validation";
import { defaults } from "@licet/validation/config";

const customers = 10_000;
const tenant = "tradsys";

/**
 * The real validation service behind the real pipeline, as it runs in
 * production: telemetry on, warnings logged. Only what it starts from stands
 * in for others: a licensing service with 10,000 customers and a silent log.
 */
export async function startValidation(): Promise<{ port: number; credential: string }> {
  const logger = createLogger({ level: "warn", name: "bench" });
  await startTelemetry({ serviceName: "bench", version: "0", host: "127.0.0.1", metricsPort: 0 });
  const key = generateApiKey();
  const licensing = standIn(key);
  const credentials = createLicensingCredentials({ licensing, meshKey: "mesh", logger });
  const validation = createValidation(defaults, { bus: silentBus, licensing, logger });
  const pipeline = createPipeline({
    authenticate: (headers) => credentials.authenticate(headers),
    maxConcurrent: 500,
    maxStreams: 10,
    logger,
  });
  await validation.start();
  const server = createGrpcServer({ bindings: [...validation.bindings], pipeline, host: "127.0.0.1", port: 0, logger });
  const { port } = await server.start();
  return { port, credential: key.key };
}

/** A log in which nothing ever happens, but heartbeats. */
const silentBus: EventBus = {
  publish: async () => undefined,
  heartbeat: async () => undefined,
  id: async () => "none",
  endOffsets: async () => [],
  async subscribe({ topics: [topic = ""], onHeartbeat }) {
    const beat = (): void => {
      for (let partition = 0; partition < 4; partition++) onHeartbeat?.({ topic, partition, issuedAt: new Date() });
    };
    const beating = setInterval(beat, 1_000);
    return { caughtUp: async () => undefined, stop: async () => clearInterval(beating) };
  },
  stop: async () => undefined,
};

function standIn({ keyId, secretHash }: { keyId: string; secretHash: Uint8Array }): Transport {
  return createRouterTransport(({ service }) => {
    service(TenantService, {
      resolveCredential: () => ({
        credential: {
          tenantId: tenant,
          keyId,
          secretHash: Uint8Array.from(secretHash),
          role: ApiKeyRole.SERVICE,
          scopes: ["features:check"],
          version: 1n,
        },
      }),
    });
    service(LicensingService, {
      getDatabaseTime: () => ({ databaseTime: timestampFromMs(Date.now()) }),
      async *streamEntitlementSnapshots() {
        yield {
          catalogs: [{ tenantId: tenant, product: "trading", version: 1n, features: [{ feature: "egx_access" }] }],
        };
        for (let index = 0; index < customers; index++) yield { snapshots: [snapshotOf(index)] };
      },
    });
  });
}

function snapshotOf(index: number) {
  const customerId = `customer-${index}`;
  return {
    tenantId: tenant,
    customerId,
    version: 7n,
    licenses: [
      {
        licenseId: `0197a000-0000-7000-8000-${String(index).padStart(12, "0")}`,
        customerId,
        product: "trading",
        plan: "enterprise",
        planVersion: 1,
        type: LicenseType.ENTERPRISE,
        status: LicenseStatus.ACTIVE,
        features: ["*"],
        validFrom: timestampFromMs(Date.UTC(2020, 0, 1)),
        validUntil: timestampFromMs(Date.UTC(2040, 0, 1)),
      },
    ],
  };
}

import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";
import { createRouterTransport } from "@connectrpc/connect";
import { LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { createLicensingCredentials } from "@licet/mesh/credentials";
import { generateApiKey } from "@licet/platform/credentials";
import type { Batch, EventBus } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { createLogger } from "@licet/platform/logging";
import { createGrpcServer } from "@licet/platform/rpc/grpc";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { startTelemetry } from "@licet/platform/telemetry";
import { createValidation } from "@licet/validation";
import { defaults, type WatchLimits, watchDefaults } from "@licet/validation/config";

const tenant = "tradsys";

/** What the validation service is to know, and how much of it changes. */
export interface World {
  readonly customers: number;
  /** Events of the log, each about one customer. */
  readonly changesPerSecond: number;
}

/** How many streams the service may hold. */
export interface StreamLimits {
  readonly maxStreams: number;
  readonly watches: WatchLimits;
}

/** The running service. */
export interface RunningValidation {
  readonly port: number;
  /** An API key that it accepts. */
  readonly credential: string;
  /** Applies so many further changes, of `customer-0` to `customer-(n-1)` in turn. */
  change(changes: number): Promise<void>;
}

/**
 * The real validation service behind the real pipeline, as it runs in
 * production: telemetry on, warnings logged. Only what it starts from stands
 * in for others: a licensing service with so many customers, and a log.
 */
export async function startValidation(
  world: World,
  { maxStreams, watches }: StreamLimits = { maxStreams: 10, watches: watchDefaults },
): Promise<RunningValidation> {
  const logger = createLogger({ level: "warn", name: "bench" });
  await startTelemetry({ serviceName: "bench", version: "0", host: "127.0.0.1", metricsPort: 0 });
  const key = generateApiKey();
  const licensing = standIn(key, world);
  const credentials = createLicensingCredentials({ licensing, meshKey: "mesh", logger });
  const { bus, change } = createBus(world);
  const validation = createValidation({ ...defaults, watches }, { bus, licensing, logger });
  const pipeline = createPipeline({
    authenticate: (headers) => credentials.authenticate(headers),
    authenticateNow: (headers) => credentials.authenticateNow(headers),
    maxConcurrent: 500,
    maxStreams,
    logger,
  });
  await validation.start();
  const server = createGrpcServer({ bindings: [...validation.bindings], pipeline, host: "127.0.0.1", port: 0, logger });
  const { port } = await server.start();
  return { port, credential: key.key, change };
}

const features = [
  { feature: "egx_access" },
  ...Array.from({ length: 100 }, (_, index) => ({ feature: `feature_${index}` })),
];

const HEARTBEAT_MS = 1_000;
const CHANGES_MS = 10;

/** A log in which customers change one after the other, beside heartbeats: by itself, and when told to. */
function createBus({
  customers,
  changesPerSecond,
}: World): { readonly bus: EventBus } & Pick<RunningValidation, "change"> {
  const entitlements = topicOf(EntitlementSnapshotSchema).name;
  let changes = 0;
  let apply: ((batch: Batch) => Promise<void>) | undefined;
  const change = async (more: number): Promise<void> => {
    for (const end = changes + more; changes < end; ) await apply?.(batchOf(entitlements, changes++, customers));
  };
  const bus: EventBus = {
    publish: async () => undefined,
    heartbeat: async () => undefined,
    id: async () => "none",
    endOffsets: async () => [],
    async subscribe({ topics: [topic = ""], onHeartbeat, handle }) {
      const beat = (): void => {
        for (let partition = 0; partition < 4; partition++) onHeartbeat?.({ topic, partition, issuedAt: new Date() });
      };
      const timers = [setInterval(beat, HEARTBEAT_MS)];
      if (topic === entitlements) {
        apply = handle;
        const due = changesPerSecond / (1_000 / CHANGES_MS);
        if (due > 0) timers.push(setInterval(() => void change(due), CHANGES_MS));
      }
      return {
        caughtUp: async () => undefined,
        stop: async () => {
          for (const timer of timers) clearInterval(timer);
        },
      };
    },
    stop: async () => undefined,
  };
  return { bus, change };
}

/** The change with this number: a customer's snapshot in its next version. */
function batchOf(topic: string, change: number, customers: number): Batch {
  // Prime to most numbers of customers, so that all have their turn.
  const index = (change * 7_919) % customers;
  const message = create(EntitlementSnapshotSchema, snapshotOf(index, BigInt(8 + Math.floor(change / customers))));
  const offset = BigInt(change);
  const value = toBinary(EntitlementSnapshotSchema, message);
  const records = [{ topic, partition: 0, offset, key: message.customerId, headers: {}, value }];
  const { signal } = new AbortController();
  return { topic, partition: 0, records, firstOffset: offset, nextOffset: offset + 1n, signal };
}

function standIn({ keyId, secretHash }: { keyId: string; secretHash: Uint8Array }, { customers }: World): Transport {
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
          catalogs: [{ tenantId: tenant, product: "trading", version: 1n, features }],
        };
        for (let index = 0; index < customers; index++) yield { snapshots: [snapshotOf(index)] };
      },
    });
  });
}

function snapshotOf(index: number, version = 7n) {
  const customerId = `customer-${index}`;
  return {
    tenantId: tenant,
    customerId,
    version,
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

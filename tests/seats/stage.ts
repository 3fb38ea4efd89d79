import { fileURLToPath } from "node:url";
import { type Client, createClient } from "@connectrpc/connect";
import { ActivationService } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { KeyFormat } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { SeatMode, SeatsBelowUse } from "@licet/contracts/licet/licensing/v1/seat_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { createLicensing, type Licensing } from "@licet/licensing";
import { subscriptionDefaults } from "@licet/licensing/config";
import { scopesOf } from "@licet/licensing/domain/roles";
import type { EventBus } from "@licet/platform/events/bus";
import { createLogger } from "@licet/platform/logging";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { createTestDatabase, type TestDatabase } from "@licet/platform/testing/database";

/** The tenant whose seats are fought for. */
const TENANT = "seats";

/** How its products' seats are held. What each has to keep is checked by {@link Product}. */
export const products = {
  locked: { minMatchingComponents: 2 },
  leased: { minMatchingComponents: 2, leaseSeconds: 60, belowUse: SeatsBelowUse.BLOCK },
  floating: { minMatchingComponents: 2, mode: SeatMode.FLOATING, leaseSeconds: 30 },
} as const;

/** The code of a product. */
export type Product = keyof typeof products;

/** What callers call. */
export interface Clients {
  readonly activations: Client<typeof ActivationService>;
  readonly licenses: Client<typeof LicensingService>;
  readonly customers: Client<typeof CustomerService>;
}

/** Licensing services on one database, with connections of their own and one clock, which is moved. */
export interface Stage {
  readonly database: TestDatabase<never>;
  /** One for each service. */
  readonly clients: readonly Clients[];
  readonly services: readonly Licensing[];
  readonly clock: { now: number };
  stop(): Promise<void>;
}

const silentBus: EventBus = {
  publish: async () => undefined,
  heartbeat: async () => undefined,
  id: async () => "none",
  endOffsets: async () => [],
  subscribe: () => Promise.reject(new Error("licensing subscribes to nothing")),
  stop: async () => undefined,
};

/** Starts so many services on the test server, with the tenant and its products. */
export async function setStage(instances: number): Promise<Stage> {
  const migrations = fileURLToPath(new URL("../../services/licensing/migrations", import.meta.url));
  const database = await createTestDatabase<never>({ name: "seats", migrations });
  const logger = createLogger({ level: "fatal", name: "seats" });
  const clock = { now: Date.UTC(2026, 10, 22, 10) };
  const now = () => new Date(clock.now);
  const services = Array.from({ length: instances }, () =>
    createLicensing(
      {
        database: { appUrl: database.url("licet_app"), systemUrl: database.url("licet_system") },
        maxConnections: 8,
        masterKeys: [{ id: "test", key: new Uint8Array(32).fill(7) }],
        currentMasterKey: "test",
        subscriptions: subscriptionDefaults,
        publicCalls: { perKeyAndDay: 0, attemptsPerMinute: 0 },
      },
      { bus: silentBus, logger, now, schedulerNow: now },
    ),
  );
  const scopes = new Set([...scopesOf.admin, ...scopesOf.operator]);
  const authenticate = async (headers: Headers) => ({
    id: "test",
    tenant: headers.get("x-tenant") ?? "",
    role: "admin",
    scopes,
    kind: "api_key" as const,
  });
  const transports = services.map(({ bindings }) => {
    const pipeline = createPipeline({ authenticate, maxConcurrent: 500, maxStreams: 1, logger });
    return (tenant: string) => createLocalTransport({ bindings, pipeline, headers: { "x-tenant": tenant } });
  });
  const clients = transports.map((as) => ({
    activations: createClient(ActivationService, as(TENANT)),
    licenses: createClient(LicensingService, as(TENANT)),
    customers: createClient(CustomerService, as(TENANT)),
  }));
  const [first] = transports;
  if (!first) throw new RangeError("a stage has at least one service");
  await createClient(TenantService, first("_platform")).createTenant({
    requestId: "t",
    tenantId: TENANT,
    name: "Seats",
  });
  const catalog = createClient(CatalogService, first(TENANT));
  for (const [product, seatPolicy] of Object.entries(products)) {
    const keys = { keyFormat: KeyFormat.OPAQUE, keyPrefix: "SE" };
    await catalog.createProduct({ requestId: product, product, name: product, ...keys, seatPolicy });
  }
  return {
    database,
    clients,
    services,
    clock,
    async stop() {
      for (const service of services) await service.stop();
      await database.drop();
    },
  };
}

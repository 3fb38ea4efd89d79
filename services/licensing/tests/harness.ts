import { fileURLToPath } from "node:url";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { ActivationService } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import type { Credential } from "@licet/platform/credentials";
import { platformError } from "@licet/platform/errors";
import type { EventBus, OutgoingRecord } from "@licet/platform/events/bus";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { createGrpcServer } from "@licet/platform/rpc/grpc";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import type { RpcServer } from "@licet/platform/rpc/server";
import { createWebServer } from "@licet/platform/rpc/web";
import { createTestDatabase, type TestDatabase } from "@licet/platform/testing/database";
import { ATTEMPTS, patient } from "@licet/platform/testing/patient";
import { until } from "@licet/platform/testing/until";
import { sql } from "kysely";
import {
  type PublicCallLimits,
  publicCallDefaults,
  type SubscriptionLimits,
  subscriptionDefaults,
} from "../src/config.ts";
import { type Role, scopesOf } from "../src/domain/roles.ts";
import { createLicensing, type Dependencies, type Licensing } from "../src/service.ts";
import type { DB } from "../src/store/schema.ts";

/** Clients of licensing's services, all acting for one tenant in one role. */
export interface Clients {
  tenants: Client<typeof TenantService>;
  catalog: Client<typeof CatalogService>;
  customers: Client<typeof CustomerService>;
  licenses: Client<typeof LicensingService>;
  keys: Client<typeof KeyService>;
  activations: Client<typeof ActivationService>;
  bulk: Client<typeof BulkService>;
}

/** A licensing service on a database of its own, with a clock that tests set and a bus that remembers. */
export interface Harness {
  database: TestDatabase<DB>;
  licensing: Licensing;
  clock: { now: Date };
  /** What was published, in order. */
  published: OutgoingRecord[];
  as(tenant: string, role: Role | "mesh"): Clients;
  /** What `as` calls through; with `scopes` the caller holds only those of the role's. */
  transport(tenant: string, role: Role | "mesh", scopes?: readonly string[]): Transport;
  /** Callers refused from now on, as `<tenant> <role>`: their keys were revoked. */
  revoked: Set<string>;
  /** Opens ports; callers name themselves by `authorization: test <tenant> <role>`. End them before `stop`. */
  serve(): Promise<ServedHarness>;
  /** What installed products call, without any credential. */
  installed: Client<typeof ActivationService>;
  /** One more licensing service on the same database, not started. */
  instance(overrides?: Partial<Dependencies>): Licensing;
  /** What installed products call of such an instance. */
  installedOf(instance: Licensing): Client<typeof ActivationService>;
  stop(): Promise<void>;
}

/** The ports of a harness. */
export interface ServedHarness {
  grpcAddress: string;
  webUrl: string;
  /** Ends the servers as a process does that was told to end. */
  stop(graceMs: number): Promise<void>;
}

/** Everything that a bus which only remembers is asked by a relay. */
function rememberingBus(published: OutgoingRecord[]): EventBus {
  return {
    publish: async (records) => void published.push(...records),
    heartbeat: async () => undefined,
    id: async () => "none",
    endOffsets: async () => [],
    subscribe: () => Promise.reject(new Error("licensing subscribes to nothing")),
    stop: async () => undefined,
  };
}

/**
 * @param subscriptions bounds of subscribers that differ from the usual ones.
 * @param publicCalls bounds of public calls that differ from the usual ones.
 */
export async function startHarness(
  subscriptions: Partial<SubscriptionLimits> = {},
  publicCalls: Partial<PublicCallLimits> = {},
): Promise<Harness> {
  const database = await createTestDatabase<DB>({
    name: "licensing",
    migrations: fileURLToPath(new URL("../migrations", import.meta.url)),
  });
  const logger = createLogger({ level: "fatal", name: "test" });
  const clock = { now: new Date("2026-11-22T10:00:00Z") };
  const published: OutgoingRecord[] = [];
  const instance = (overrides: Partial<Dependencies> = {}) =>
    createLicensing(
      {
        database: { appUrl: database.patientUrl("licet_app"), systemUrl: database.patientUrl("licet_system") },
        maxConnections: 8,
        masterKeys: [{ id: "test", key: new Uint8Array(32).fill(7) }],
        currentMasterKey: "test",
        subscriptions: { ...subscriptionDefaults, ...subscriptions },
        publicCalls: { ...publicCallDefaults, ...publicCalls },
      },
      {
        bus: rememberingBus(published),
        logger,
        now: () => clock.now,
        schedulerNow: () => clock.now,
        ...overrides,
      },
    );
  const licensing = instance();
  licensing.start();
  // The tests' callers say who they are: `test <tenant> <role>`.
  const revoked = new Set<string>();
  const authenticate = async (headers: Headers): Promise<Credential> => {
    const [tenant = "", role = "", narrowed] = (headers.get("authorization") ?? "").split(" ").slice(1);
    if (revoked.has(`${tenant} ${role}`)) throw platformError("CREDENTIAL_INVALID", "the API key was revoked");
    const scopes = narrowed?.split(",") ?? (role === "mesh" ? ["mesh"] : scopesOf[role as Role]);
    return {
      id: `key-of-${tenant}`,
      tenant,
      role,
      scopes: new Set(scopes),
      kind: role === "mesh" ? "mesh" : "api_key",
    };
  };
  const pipeline = createPipeline({ authenticate, maxConcurrent: 200, maxStreams: 20, logger });
  const transport = (tenant: string, role: Role | "mesh", scopes?: readonly string[]) => {
    const authorization = ["test", tenant, role, ...(scopes ? [scopes.join(",")] : [])].join(" ");
    return patient(
      createLocalTransport({ bindings: licensing.bindings, pipeline, headers: { authorization } }),
      ATTEMPTS,
    );
  };
  const installedOf = ({ bindings }: Licensing) =>
    // Once: what is asked by a license key is counted.
    createClient(ActivationService, patient(createLocalTransport({ bindings, pipeline, headers: {} })));
  return {
    database,
    licensing,
    clock,
    published,
    revoked,
    async serve() {
      const options = { bindings: licensing.bindings, pipeline, host: "127.0.0.1", port: 0, logger };
      const servers: RpcServer[] = [createGrpcServer(options), createWebServer(options)];
      const [grpc, web] = await Promise.all(servers.map((server) => server.start()));
      return {
        grpcAddress: `127.0.0.1:${grpc?.port}`,
        webUrl: `http://127.0.0.1:${web?.port}`,
        stop: async (graceMs) => void (await Promise.all(servers.map((server) => server.stop(graceMs)))),
      };
    },
    installed: installedOf(licensing),
    installedOf,
    instance,
    transport,
    as(tenant, role) {
      const channel = transport(tenant, role);
      return {
        tenants: createClient(TenantService, channel),
        catalog: createClient(CatalogService, channel),
        customers: createClient(CustomerService, channel),
        licenses: createClient(LicensingService, channel),
        keys: createClient(KeyService, channel),
        activations: createClient(ActivationService, channel),
        bulk: createClient(BulkService, channel),
      };
    },
    async stop() {
      await licensing.stop();
      await database.drop();
    },
  };
}

/**
 * Creates a tenant with product `trading` (3 days of grace), two features and plan `standard`, and one customer `nile` unless
 * none is wanted.
 */
export async function seedTenant(
  harness: Harness,
  tenantId: string,
  { customer = true }: { readonly customer?: boolean } = {},
): Promise<Clients> {
  const operator = harness.as("_platform", "operator");
  await operator.tenants.createTenant({ requestId: newId(), tenantId, name: tenantId });
  const admin = harness.as(tenantId, "admin");
  await admin.catalog.createProduct({ requestId: newId(), product: "trading", name: "Trading", graceDays: 3 });
  for (const feature of ["basic_trading", "egx_access"]) {
    await admin.catalog.createFeature({ requestId: newId(), product: "trading", feature, name: feature });
  }
  await admin.catalog.createPlan({
    requestId: newId(),
    product: "trading",
    plan: "standard",
    name: "Standard",
    terms: {
      type: LicenseType.STANDARD,
      features: ["basic_trading"],
      limits: [{ metric: "users", maximum: 50n, window: 1, enforcement: 1 }],
    },
  });
  if (!customer) return admin;
  await admin.customers.createCustomer({
    requestId: newId(),
    customerId: "nile",
    name: "Nile Brokers",
    email: "Desk@Nile.example",
  });
  return admin;
}

/** Resolves when a session of the database waits for a lock that another one has. */
export function untilOneWaits({ databases: { app } }: TestDatabase<DB>): Promise<void> {
  return until("somebody waits for a lock", async () => {
    const { rows } = await sql`
      SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`.execute(app);
    return rows.length > 0;
  });
}

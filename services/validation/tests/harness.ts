import { create, type DescService, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import { LicenseType, ProductCatalogSchema } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CredentialChangedSchema } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { type LicenseSchema, LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { UsageLevelsSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { createLicensingCredentials, followCredentials } from "@licet/mesh/credentials";
import { generateApiKey } from "@licet/platform/credentials";
import { platformError, ServiceError } from "@licet/platform/errors";
import type { EventBus, OutgoingRecord } from "@licet/platform/events/bus";
import { topicOf, toRecord } from "@licet/platform/events/cloudevent";
import { migrations } from "@licet/platform/events/migrations";
import { createPostgresBus } from "@licet/platform/events/postgres";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { type Channel, createChannel } from "@licet/platform/rpc/client";
import { createGrpcServer } from "@licet/platform/rpc/grpc";
import { type Handlers, implement, type ServiceBinding } from "@licet/platform/rpc/handlers";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline, type Pipeline } from "@licet/platform/rpc/pipeline";
import { createTestDatabase } from "@licet/platform/testing/database";
import { patient } from "@licet/platform/testing/patient";
import { until } from "@licet/platform/testing/until";
import { type Config, defaults } from "../src/config.ts";
import { createValidation, type Dependencies, type Validation } from "../src/service.ts";

export type WireSnapshot = MessageInitShape<typeof EntitlementSnapshotSchema>;
export type WireLicense = MessageInitShape<typeof LicenseSchema>;
export type WireCatalog = MessageInitShape<typeof ProductCatalogSchema>;
export type WireCredential = MessageInitShape<typeof CredentialChangedSchema>;

/** The instant at which the fake clock stands until a test moves it. */
export const startMs = Date.parse("2030-06-01T00:00:00Z");
export const dayMs = 86_400_000;
const meshKey = "mesh-key-of-the-test";
const logger = createLogger({ level: "silent", name: "validation-test" });

/** A licensing service that holds what the test puts into it and remembers what it was asked. */
export interface FakeLicensing {
  readonly catalogs: WireCatalog[];
  /** By `<tenant>/<customer>`. */
  readonly snapshots: Map<string, WireSnapshot>;
  readonly credentials: Map<string, WireCredential>;
  /** What it was asked for: `<tenant>/<customer>`, key ids, `stream`, `stream of <tenant>` and `time`. */
  readonly asked: string[];
  /** How far its database's clock is ahead of the service's. */
  clockAheadMs: number;
  /** Runs before each answer; throws to make licensing fail. */
  before: (what: string) => Promise<void>;
}

/** An instance of validation behind a real port. */
export interface Instance {
  readonly validation: Validation;
  /** A client with a key; by default one of `tradsys` that may check features. */
  client(key?: string): Client<typeof ValidationService>;
  /** As `client`, in the same process. */
  localClient(): Client<typeof ValidationService>;
  /** Ends the instance as SIGTERM does. */
  end(): Promise<void>;
}

/** The validation service behind a real port, on a real log, beside a fake licensing service, with a fake clock. */
export interface Harness extends Instance {
  readonly licensing: FakeLicensing;
  readonly bus: EventBus;
  readonly clock: { ms: number };
  /** An API key of a tenant that licensing can resolve. */
  newKey(tenant: string, scopes?: readonly string[]): { key: string; credential: WireCredential };
  /** How many calls had their credential proved by the pipeline: those that no shortcut answered. */
  readonly counts: { readonly authenticated: number };
  /** Builds another instance of the service beside the first; it is created, not started. */
  another(): Promise<Instance>;
  publish(...records: OutgoingRecord[]): Promise<void>;
  /** Resolves when every credential that was published so far is known. */
  credentialsCaughtUp(): Promise<void>;
  close(): Promise<void>;
}

/** Builds it all; the service is created, not started. It sees the log as `wrapBus` shows it. */
export async function createHarness(
  overrides: Partial<Config> = {},
  wrapBus: (bus: EventBus) => EventBus = (bus) => bus,
  dependencies: Partial<Dependencies> = {},
): Promise<Harness> {
  const database = await createTestDatabase({
    name: "validation",
    migrations,
  });
  const topics = [EntitlementSnapshotSchema, ProductCatalogSchema, CredentialChangedSchema, UsageLevelsSchema].map(
    topicOf,
  );
  const bus = await createPostgresBus({ url: database.url("licet_system"), topics, logger, pollMs: 10 });
  const clock = { ms: startMs };
  const licensing = emptyLicensing();
  const counts = { authenticated: 0 };

  const pipeline = createPipeline({
    authenticate(headers) {
      counts.authenticated += 1;
      return credentials.authenticate(headers);
    },
    authenticateNow: (headers) => credentials.authenticateNow(headers),
    maxConcurrent: 100,
    maxStreams: 10,
    logger,
  });
  const transport = createLocalTransport({
    bindings: licensingBindings(licensing, clock),
    pipeline,
    headers: { authorization: `Bearer ${meshKey}` },
  });
  const credentials = createLicensingCredentials({ licensing: transport, meshKey, logger, now: () => clock.ms });
  const followed = await followCredentials(credentials, bus, logger);
  await followed.caughtUp();
  const config: Config = { ...defaults, ...overrides };
  const newKey: Harness["newKey"] = (tenant, scopes = ["features:check"]) => {
    const { key, keyId, secretHash } = generateApiKey();
    const credential = {
      tenantId: tenant,
      keyId,
      secretHash,
      role: ApiKeyRole.SERVICE,
      scopes: [...scopes],
      version: 1n,
    };
    licensing.credentials.set(keyId, credential);
    return { key, credential };
  };
  const instances: Instance[] = [];
  const another = async (): Promise<Instance> => {
    const validation = createValidation(config, {
      bus: wrapBus(bus),
      licensing: transport,
      logger,
      now: () => new Date(clock.ms),
      steadyMs: () => clock.ms,
      ...dependencies,
    });
    const instance = await serve(validation, pipeline, () => newKey("tradsys").key);
    instances.push(instance);
    return instance;
  };
  const first = await another();
  return {
    ...first,
    licensing,
    bus,
    clock,
    newKey,
    counts,
    another,
    publish: (...records) => bus.publish(records),
    credentialsCaughtUp: () => followed.caughtUp(),
    async close() {
      for (const instance of instances) await instance.end();
      await bus.stop();
      await database.drop();
    },
  };
}

async function serve(validation: Validation, pipeline: Pipeline, defaultKey: () => string): Promise<Instance> {
  const { bindings } = validation;
  const server = createGrpcServer({ bindings, pipeline, host: "127.0.0.1", port: 0, logger });
  const { port } = await server.start();
  const channels: Channel[] = [];
  let ended: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    // Callers hear why their streams end before their channels are closed.
    await server.stop(1_000);
    for (const channel of channels) channel.close();
    await validation.stop();
  };
  return {
    validation,
    client(key = defaultKey()) {
      const channel = createChannel({ address: `127.0.0.1:${port}`, credential: key });
      channels.push(channel);
      return createClient(ValidationService, patient(channel));
    },
    localClient() {
      const headers = { authorization: `Bearer ${defaultKey()}` };
      return createClient(ValidationService, patient(createLocalTransport({ bindings, pipeline, headers })));
    },
    end() {
      ended ??= end();
      return ended;
    },
  };
}

function emptyLicensing(): FakeLicensing {
  return {
    catalogs: [],
    snapshots: new Map(),
    credentials: new Map(),
    asked: [],
    clockAheadMs: 0,
    before: async () => undefined,
  };
}

function licensingBindings(fake: FakeLicensing, clock: { ms: number }): ServiceBinding[] {
  const ask = async (what: string): Promise<void> => {
    fake.asked.push(what);
    await fake.before(what);
  };
  return [
    partly(LicensingService, {
      async getEntitlementSnapshot(_ctx, call, { customerId }) {
        const name = `${call.tenant}/${customerId}`;
        await ask(name);
        const found = fake.snapshots.get(name);
        if (found === undefined) throw notFound("CUSTOMER_NOT_FOUND");
        return { snapshot: { ...found, issuedAt: timestampFromMs(clock.ms + fake.clockAheadMs) } };
      },
      async getDatabaseTime() {
        await ask("time");
        return { databaseTime: timestampFromMs(clock.ms + fake.clockAheadMs) };
      },
      async *streamEntitlementSnapshots(_ctx, _call, { tenantId }) {
        await ask(tenantId === "" ? "stream" : `stream of ${tenantId}`);
        const wanted = (one: { tenantId?: string }) => tenantId === "" || one.tenantId === tenantId;
        yield { catalogs: fake.catalogs.filter(wanted) };
        for (const one of fake.snapshots.values()) if (wanted(one)) yield { snapshots: [one] };
      },
    }),
    partly(TenantService, {
      async resolveCredential(_ctx, _call, { keyId }) {
        await ask(keyId);
        const credential = fake.credentials.get(keyId);
        if (credential === undefined) throw notFound("API_KEY_NOT_FOUND");
        return { credential };
      },
    }),
  ];
}

/** A service of which only some methods work. */
function partly<S extends DescService>(service: S, some: Partial<Handlers<S, undefined>>): ServiceBinding {
  const refuse = (): never => {
    throw platformError("METHOD_UNKNOWN", "the fake licensing service does not do this");
  };
  const rest = Object.fromEntries(service.methods.map(({ localName }) => [localName, refuse]));
  return implement(service, undefined, { ...rest, ...some } as Handlers<S, undefined>);
}

function notFound(reason: string): ServiceError {
  return new ServiceError({ code: "NOT_FOUND", reason, message: "there is none" });
}

/** Makes licensing fail as one that can't be reached. */
export async function unreachable(): Promise<void> {
  throw platformError("DEPENDENCY_UNAVAILABLE", "licensing is away");
}

/** A license of `tradsys`' product `trading` in force, with one feature. */
export function license(overrides: WireLicense = {}): WireLicense {
  return {
    licenseId: "0197a000-0000-7000-8000-000000000001",
    product: "trading",
    plan: "standard",
    planVersion: 1,
    type: LicenseType.STANDARD,
    status: LicenseStatus.ACTIVE,
    features: ["basic_trading"],
    validFrom: timestampFromMs(startMs - 100 * dayMs),
    validUntil: timestampFromMs(startMs + 100 * dayMs),
    ...overrides,
  };
}

export function snapshot(customerId: string, version: bigint, ...licenses: WireLicense[]): WireSnapshot {
  return { tenantId: "tradsys", customerId, version, licenses, issuedAt: timestampFromMs(startMs) };
}

export function catalog(version: bigint, features: readonly string[], overrides: WireCatalog = {}): WireCatalog {
  return {
    tenantId: "tradsys",
    product: "trading",
    version,
    name: "Trading",
    features: features.map((feature) => ({ feature })),
    ...overrides,
  };
}

export function snapshotRecord(message: WireSnapshot): OutgoingRecord {
  const { tenantId, customerId } = create(EntitlementSnapshotSchema, message);
  return toRecord({ schema: EntitlementSnapshotSchema, message, key: `${tenantId}/${customerId}`, ...event });
}

export function catalogRecord(message: WireCatalog): OutgoingRecord {
  const { tenantId, product } = create(ProductCatalogSchema, message);
  return toRecord({ schema: ProductCatalogSchema, message, key: `${tenantId}/${product}`, ...event });
}

export function credentialRecord(message: WireCredential): OutgoingRecord {
  const { keyId } = create(CredentialChangedSchema, message);
  return toRecord({ schema: CredentialChangedSchema, message, key: keyId, ...event });
}

const event = {
  get id(): string {
    return newId();
  },
  source: "licet/licensing",
  type: "licet.test.v1",
  subject: "test",
  time: new Date(startMs),
};

/** A log whose readers can be cut off: what is published meanwhile waits, in order, and is delivered once it is mended. */
export interface CutBus extends EventBus {
  cut(): void;
  mend(): void;
  isCut(): boolean;
  /** Resolves once a batch waits behind the cut. */
  held(): Promise<void>;
}

/** Wraps a log; it is whole at first. */
export function cutBus(bus: EventBus): CutBus {
  let gate: PromiseWithResolvers<void> | undefined;
  let waiting = 0;
  return {
    ...bus,
    cut() {
      gate ??= Promise.withResolvers();
    },
    mend() {
      gate?.resolve();
      gate = undefined;
    },
    isCut: () => gate !== undefined,
    held: () => until("a batch waits behind the cut", () => waiting > 0),
    subscribe: ({ handle, ...options }) =>
      bus.subscribe({
        ...options,
        async handle(batch) {
          waiting++;
          await gate?.promise;
          waiting--;
          await handle(batch);
        },
      }),
  };
}

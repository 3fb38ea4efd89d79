import { create, type DescService, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { LicenseType, ProductCatalogSchema } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CredentialChangedSchema } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { type LicenseSchema, LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
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
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { createTestDatabase } from "@licet/platform/testing/database";
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
  /** What it was asked for: `<tenant>/<customer>`, key ids, `stream` and `time`. */
  readonly asked: string[];
  /** How far its database's clock is ahead of the service's. */
  clockAheadMs: number;
  /** Runs before each answer; throws to make licensing fail. */
  before: (what: string) => Promise<void>;
}

/** The validation service behind a real port, on a real log, beside a fake licensing service, with a fake clock. */
export interface Harness {
  readonly licensing: FakeLicensing;
  readonly validation: Validation;
  readonly bus: EventBus;
  readonly clock: { ms: number };
  /** An API key of a tenant that licensing can resolve. */
  newKey(tenant: string, scopes?: readonly string[]): { key: string; credential: WireCredential };
  /** A client with a key; by default one of `tradsys` that may check features. */
  client(key?: string): Client<typeof ValidationService>;
  publish(...records: OutgoingRecord[]): Promise<void>;
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
  const topics = [EntitlementSnapshotSchema, ProductCatalogSchema, CredentialChangedSchema].map(topicOf);
  const bus = await createPostgresBus({ url: database.url("licet_system"), topics, logger, pollMs: 10 });
  const clock = { ms: startMs };
  const licensing = emptyLicensing();

  const pipeline = createPipeline({
    authenticate: (headers) => credentials.authenticate(headers),
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
  await (await followCredentials(credentials, bus, logger)).caughtUp();
  const config: Config = { ...defaults, ...overrides };
  const validation = createValidation(config, {
    bus: wrapBus(bus),
    licensing: transport,
    logger,
    now: () => new Date(clock.ms),
    steadyMs: () => clock.ms,
    ...dependencies,
  });
  const bindings = validation.bindings;
  const server = createGrpcServer({ bindings, pipeline, host: "127.0.0.1", port: 0, logger });
  const { port } = await server.start();

  const channels: Channel[] = [];
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
  return {
    licensing,
    validation,
    bus,
    clock,
    newKey,
    client(key = newKey("tradsys").key) {
      const channel = createChannel({ address: `127.0.0.1:${port}`, credential: key });
      channels.push(channel);
      // Patient, where a call says nothing: first calls compile rules, for which a busy machine takes longer than 250 ms.
      const patient: Transport = {
        stream: channel.stream,
        unary: (method, signal, timeoutMs = 5_000, ...rest) => channel.unary(method, signal, timeoutMs, ...rest),
      };
      return createClient(ValidationService, patient);
    },
    publish: (...records) => bus.publish(records),
    async close() {
      for (const channel of channels) channel.close();
      await server.stop(1_000);
      await validation.stop();
      await bus.stop();
      await database.drop();
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
      async *streamEntitlementSnapshots() {
        await ask("stream");
        yield { catalogs: [...fake.catalogs] };
        for (const one of fake.snapshots.values()) yield { snapshots: [one] };
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

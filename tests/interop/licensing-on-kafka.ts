import { randomBytes } from "node:crypto";
import { createClient } from "@connectrpc/connect";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { createLicensing } from "@licet/licensing";
import { migrations } from "@licet/licensing/migrations";
import { createLicensingCredentials, followCredentials } from "@licet/mesh/credentials";
import { topics } from "@licet/mesh/topics";
import { type Credentials, generateApiKey } from "@licet/platform/credentials";
import { createKafkaBus } from "@licet/platform/events/kafka";
import { createKafkaAdmin, createKafkaClient } from "@licet/platform/events/kafka-client";
import { applyTopics } from "@licet/platform/events/kafka-topics";
import { createLogger } from "@licet/platform/logging";
import { createChannel } from "@licet/platform/rpc/client";
import { createGrpcServer } from "@licet/platform/rpc/grpc";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { createTestDatabase, type TestDatabase } from "@licet/platform/testing/database";
import { ATTEMPTS, patient } from "@licet/platform/testing/patient";

/** Clients of licensing's services, all with one API key. */
export interface LicensingClients {
  readonly tenants: ReturnType<typeof createClient<typeof TenantService>>;
  readonly catalog: ReturnType<typeof createClient<typeof CatalogService>>;
  readonly customers: ReturnType<typeof createClient<typeof CustomerService>>;
  readonly licenses: ReturnType<typeof createClient<typeof LicensingService>>;
  close(): void;
}

/** A licensing service with a gRPC port, real keys and its events in Kafka. */
export interface LicensingOnKafka {
  readonly address: string;
  /** The key by which tenants are created. */
  readonly operatorKey: string;
  readonly database: TestDatabase<unknown>;
  as(apiKey: string): LicensingClients;
  drain(): Promise<void>;
  /** Ends the port as a process does that was told to end, and opens the same one again. */
  restartPort(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts one on a database of its own; the topics are made. */
export async function startLicensingOnKafka(brokers: readonly string[]): Promise<LicensingOnKafka> {
  const logger = createLogger({ level: "silent", name: "license-events-test" });
  const connection = { brokers };
  const admin = createKafkaAdmin(createKafkaClient(connection, "license-events-test", logger));
  await admin.ask((client) => applyTopics(client, topics));
  await admin.stop();
  const bus = await createKafkaBus({ connection, clientId: "license-events-test", topics, logger });
  const database = await createTestDatabase<unknown>({ name: "license_events", migrations });
  const licensing = createLicensing(
    {
      database: { appUrl: database.url("licet_app"), systemUrl: database.url("licet_system") },
      maxConnections: 4,
      masterKeys: [{ id: "test", key: randomBytes(32) }],
      currentMasterKey: "test",
    },
    { bus, logger },
  );
  const meshKey = randomBytes(32).toString("base64url");
  const { bindings } = licensing;
  const pipeline = createPipeline({
    authenticate: (headers) => credentials.authenticate(headers),
    maxConcurrent: 100,
    maxStreams: 100,
    logger,
  });
  const headers = { authorization: `Bearer ${meshKey}` };
  const inside = patient(createLocalTransport({ bindings, pipeline, headers }), ATTEMPTS);
  const credentials: Credentials = createLicensingCredentials({ licensing: inside, meshKey, logger });
  const following = await followCredentials(credentials, bus, logger);
  licensing.start();
  const operator = generateApiKey();
  await licensing.ensureOperatorKey(operator);
  const open = (port: number) => createGrpcServer({ bindings, pipeline, host: "127.0.0.1", port, logger });
  let server = open(0);
  const { port } = await server.start();
  const address = `127.0.0.1:${port}`;
  return {
    address,
    operatorKey: operator.key,
    database,
    as: (apiKey) => clientsOf(address, apiKey),
    drain: () => licensing.drain(),
    async restartPort() {
      await server.stop(10_000);
      server = open(port);
      await server.start();
    },
    async stop() {
      await server.stop(2_000);
      await following.stop();
      await licensing.stop();
      await bus.stop();
      await database.drop();
    },
  };
}

function clientsOf(address: string, credential: string): LicensingClients {
  const channel = createChannel({ address, credential });
  return {
    tenants: createClient(TenantService, channel),
    catalog: createClient(CatalogService, channel),
    customers: createClient(CustomerService, channel),
    licenses: createClient(LicensingService, channel),
    close: () => channel.close(),
  };
}

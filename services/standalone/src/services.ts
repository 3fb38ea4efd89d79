import { randomBytes } from "node:crypto";
import { createBilling } from "@licet/billing";
import { defaults as billingDefaults } from "@licet/billing/config";
import { createLicensing, type Licensing } from "@licet/licensing";
import type { PublicCallLimits } from "@licet/licensing/config";
import { createLicensingCredentials, followCredentials, type LicensingCredentials } from "@licet/mesh/credentials";
import { topics } from "@licet/mesh/topics";
import { roles } from "@licet/platform/database/roles";
import { createPostgresBus } from "@licet/platform/events/postgres";
import type { Lifecycle } from "@licet/platform/lifecycle";
import type { Logger } from "@licet/platform/logging";
import type { TrustedProxies } from "@licet/platform/rpc/address";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline, type Pipeline } from "@licet/platform/rpc/pipeline";
import { createUsageMetering, type UsageMetering } from "@licet/usage-metering";
import { createValidation, type Validation } from "@licet/validation";
import { defaults as validationDefaults } from "@licet/validation/config";
import type { DatabaseServer } from "./databases.ts";
import type { Secrets } from "./secrets.ts";

/** Calls and streams from outside at once, of each area. */
const MAX_CONCURRENT = 500;
const MAX_STREAMS = 1_000;

/** Connections of each service's app role at most; they are opened as needed. */
const MAX_CONNECTIONS = 8;

/** The four services and the pipeline that they share. */
export interface Services {
  readonly licensing: Licensing;
  readonly metering: UsageMetering;
  readonly validation: Validation;
  /** The API keys of all tenants, for whoever serves the bindings. */
  readonly credentials: LicensingCredentials;
  readonly bindings: readonly ServiceBinding[];
  readonly pipeline: Pipeline;
}

/** What {@link createServices} needs. */
export interface ServicesOptions {
  readonly databases: DatabaseServer;
  readonly secrets: Secrets;
  readonly now: () => Date;
  /** What bounds the calls of installed products; what suits most when absent. */
  readonly publicCalls?: PublicCallLimits | undefined;
  /** Whose word about where a call came from is taken. */
  readonly trustedProxies?: TrustedProxies | undefined;
  readonly logger: Logger;
  /** Learns how to stop each part. */
  readonly lifecycle: Lifecycle;
}

/**
 * Creates the four services on one bus; they call each other in this process, with a key that nobody else has. All are
 * started but validation, which is to begin once the demo data is there.
 */
export async function createServices(options: ServicesOptions): Promise<Services> {
  const { databases, secrets, now, publicCalls, trustedProxies, logger, lifecycle } = options;
  const bus = await createPostgresBus({ url: databases.url("bus", roles.system), topics, logger });
  lifecycle.defer("event bus", () => bus.stop());

  const meshKey = randomBytes(32).toString("base64url");
  const pipeline = createPipeline({
    authenticate: (headers) => credentials.authenticate(headers),
    authenticateNow: (headers) => credentials.authenticateNow(headers),
    maxConcurrent: MAX_CONCURRENT,
    maxStreams: MAX_STREAMS,
    trustedProxies,
    logger,
  });
  const reach = (bindings: readonly ServiceBinding[]) =>
    createLocalTransport({ bindings, pipeline, headers: { authorization: `Bearer ${meshKey}` } });

  const licensing = createLicensing(
    {
      database: databaseOf(databases, "licensing"),
      maxConnections: MAX_CONNECTIONS,
      ...secrets,
      ...(publicCalls && { publicCalls }),
    },
    { bus, logger, now },
  );
  lifecycle.defer("licensing", () => licensing.stop());
  const credentials: LicensingCredentials = createLicensingCredentials({
    licensing: reach(licensing.bindings),
    meshKey,
    logger,
    now: () => now().getTime(),
  });
  const following = await followCredentials(credentials, bus, logger);
  lifecycle.defer("API keys", () => following.stop());
  const metering = createUsageMetering(
    { database: databaseOf(databases, "metering"), maxConnections: MAX_CONNECTIONS },
    { bus, logger, now },
  );
  lifecycle.defer("usage metering", () => metering.stop());
  const validation = createValidation(validationDefaults, {
    bus,
    licensing: reach(licensing.bindings),
    metering: reach(metering.bindings),
    logger,
    now,
  });
  lifecycle.defer("validation", () => validation.stop());
  const billing = createBilling(billingDefaults, {
    licensing: reach(licensing.bindings),
    metering: reach(metering.bindings),
    now,
  });
  lifecycle.defer("billing", async () => billing.stop());
  licensing.start();
  credentials.use.start();
  lifecycle.defer("use of API keys", () => credentials.use.stop());
  await metering.start();
  billing.start();
  return {
    licensing,
    metering,
    validation,
    credentials,
    pipeline,
    bindings: [licensing, validation, metering, billing].flatMap((service) => service.bindings),
  };
}

function databaseOf(databases: DatabaseServer, name: "licensing" | "metering") {
  return { appUrl: databases.url(name, roles.app), systemUrl: databases.url(name, roles.system) };
}

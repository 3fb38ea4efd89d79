import { createClient } from "@connectrpc/connect";
import { ActivationService } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { createLicensing, type Licensing } from "@licet/licensing";
import { scopesOf } from "@licet/licensing/domain/roles";
import type { EventBus } from "@licet/platform/events/bus";
import type { Logger } from "@licet/platform/logging";
import type { Channel } from "@licet/platform/rpc/client";

/** Whose licenses are measured. */
export const TENANT = "bench";
/** The product of all of them, with opaque keys, and its only plan. */
export const PRODUCT = "trading";
export const PLAN = "standard";

/** The database as the two serving roles. */
export interface LicensingUrls {
  readonly appUrl: string;
  readonly systemUrl: string;
}

/** As many connections as a replica has by default; the bare loop gets as many. */
export const CONNECTIONS = 10;

export const scopesOfAdmin: ReadonlySet<string> = new Set(scopesOf.admin);

/** A licensing service on a database, not started. */
export function createBenchLicensing(urls: LicensingUrls, bus: EventBus, logger: Logger): Licensing {
  return createLicensing(
    {
      database: urls,
      maxConnections: CONNECTIONS,
      masterKeys: [{ id: "bench", key: new Uint8Array(32).fill(7) }],
      currentMasterKey: "bench",
      // Calls by a key are counted and never too many; 500 keys are asked for more than products ask for.
      publicCalls: { perKeyAndDay: 1_000_000_000, attemptsPerMinute: 0 },
    },
    { bus, logger },
  );
}

/** Clients of the services that are measured. */
export function clientsOf(channel: Pick<Channel, "unary" | "stream">) {
  return {
    activations: createClient(ActivationService, channel),
    catalog: createClient(CatalogService, channel),
    customers: createClient(CustomerService, channel),
    keys: createClient(KeyService, channel),
    licenses: createClient(LicensingService, channel),
  };
}

/** What {@link clientsOf} makes. */
export type LicensingClients = ReturnType<typeof clientsOf>;

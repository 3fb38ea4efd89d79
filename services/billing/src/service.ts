import { createClient, type Transport } from "@connectrpc/connect";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import type { Config } from "./config.ts";
import type { Context } from "./context.ts";
import { bind } from "./rpc/index.ts";

/**
 * What billing is given by the process that it runs in; the clock has a working default. Both transports carry the mesh's
 * credential with the scopes `customers:read`, `licenses:read`, `catalog:read` and `usage:read`; each call names its tenant.
 */
export interface Dependencies {
  /** Reaches CustomerService, LicensingService and CatalogService. */
  readonly licensing: Transport;
  /** Reaches UsageMeteringService. */
  readonly metering: Transport;
  readonly now?: () => Date;
}

/** The billing service: what customers owe. */
export interface Billing {
  readonly bindings: readonly ServiceBinding[];
  start(): void;
  /** Whether it serves. */
  ready(): boolean;
  stop(): void;
}

/**
 * Creates the billing service. It has no database and no work of its own in the background, because there is nothing to
 * keep: a preview is computed from what licensing and metering answer at that moment, and is forgotten. Invoices that
 * stand, and with them a database, come with subscriptions.
 */
export function createBilling(config: Config, dependencies: Dependencies): Billing {
  const { licensing, metering } = dependencies;
  const ctx: Context = {
    config,
    now: dependencies.now ?? (() => new Date()),
    clients: {
      customers: createClient(CustomerService, licensing),
      licenses: createClient(LicensingService, licensing),
      catalog: createClient(CatalogService, licensing),
      metering: createClient(UsageMeteringService, metering),
    },
  };
  let started = false;
  return {
    bindings: bind(ctx),
    start() {
      started = true;
    },
    ready: () => started,
    stop() {
      started = false;
    },
  };
}

import type { Client } from "@connectrpc/connect";
import type { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { Config } from "./config.ts";

/** What the handlers of this service share. */
export interface Context {
  readonly config: Config;
  readonly now: () => Date;
  /** Clients of the services that it computes from. */
  readonly clients: {
    readonly customers: Client<typeof CustomerService>;
    readonly licenses: Client<typeof LicensingService>;
    readonly catalog: Client<typeof CatalogService>;
    readonly metering: Client<typeof UsageMeteringService>;
  };
}

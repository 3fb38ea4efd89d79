import type { Client } from "@connectrpc/connect";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { Context } from "../../context.ts";

/** Where aliases lead whose work another service does. They call as their callers, see `clients/as-caller.ts`. */
export interface AliasClients {
  readonly licenses: Client<typeof LicensingService>;
  /** Undefined: this instance was not told where usage metering is. */
  readonly usage: Client<typeof UsageMeteringService> | undefined;
}

/** What the handlers of aliases share. */
export interface AliasContext extends Context {
  readonly clients: AliasClients;
}

import { setTimeout as delay } from "node:timers/promises";
import { type Client, createClient } from "@connectrpc/connect";
import { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { type Code, ServiceError } from "@licet/platform/errors";
import { type Channel, createChannel } from "@licet/platform/rpc/client";
import type { OutcomeKind } from "./journal.ts";

/** Where the services are, through the clients' proxies, and the keys of the tenants. */
export interface Place {
  /** By service; all replicas at once. */
  readonly addresses: { readonly licensing: string; readonly metering: string; readonly billing: string };
  /** One address for each replica of validation, by its name. */
  readonly validation: Readonly<Record<string, string>>;
  /** By tenant. */
  readonly keys: Readonly<Record<string, string>>;
}

/** The clients of one tenant. */
export interface Caller {
  readonly catalog: Client<typeof CatalogService>;
  readonly customers: Client<typeof CustomerService>;
  readonly licenses: Client<typeof LicensingService>;
  readonly usage: Client<typeof UsageMeteringService>;
  readonly invoices: Client<typeof InvoiceService>;
  /** By name of the replica. */
  readonly validation: ReadonlyMap<string, Client<typeof ValidationService>>;
  close(): void;
}

/** Opens the standard clients of a tenant. */
export function openCaller({ addresses, validation, keys }: Place, tenant: string): Caller {
  const channels: Channel[] = [];
  const open = (address: string): Channel => {
    const channel = createChannel({ address, credential: keys[tenant] ?? "" });
    channels.push(channel);
    return channel;
  };
  const licensing = open(addresses.licensing);
  return {
    catalog: createClient(CatalogService, licensing),
    customers: createClient(CustomerService, licensing),
    licenses: createClient(LicensingService, licensing),
    usage: createClient(UsageMeteringService, open(addresses.metering)),
    invoices: createClient(InvoiceService, open(addresses.billing)),
    validation: new Map(
      Object.entries(validation).map(([name, address]) => [name, createClient(ValidationService, open(address))]),
    ),
    close: () => channels.forEach((channel) => void channel.close()),
  };
}

/** Codes after which nobody knows whether the call had its effect. */
const unknownCodes: ReadonlySet<string> = new Set<Code>([
  "UNAVAILABLE",
  "DEADLINE_EXCEEDED",
  "ABORTED",
  "CANCELLED",
  "INTERNAL",
  "UNKNOWN",
]);

/** Whether nobody knows, after a call that ended with this code, what it did. */
export const isUnknown = (code: string): boolean => unknownCodes.has(code);

/** What an error says about the effect of the call, and its code with the reason. */
export function outcomeOf(error: unknown): { outcome: OutcomeKind; code: string } {
  if (!(error instanceof ServiceError)) throw error;
  return { outcome: isUnknown(error.code) ? "unknown" : "fail", code: `${error.code} ${error.reason}` };
}

/** The longest pause between two attempts, in milliseconds. */
const MAX_PAUSE_MS = 1_000;

/** Calls until there is an answer or a refusal, or `signal` aborts; then the last error is thrown. */
export async function insist<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let pauseMs = 50; ; pauseMs = Math.min(MAX_PAUSE_MS, pauseMs * 2)) {
    try {
      return await call();
    } catch (error) {
      if (signal.aborted || outcomeOf(error).outcome !== "unknown") throw error;
      await delay(pauseMs * (0.5 + Math.random()));
    }
  }
}

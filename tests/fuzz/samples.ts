import { type DescMethod, type DescService, fromJson, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { LicensingService as FirstPlan } from "@licet/contracts/licensing/licensing_service_pb";
import { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { readPolicy } from "@licet/platform/rpc/call";
import type { Sample } from "./attack.ts";

const services: readonly DescService[] = [
  TenantService,
  CatalogService,
  CustomerService,
  LicensingService,
  ValidationService,
  UsageMeteringService,
  InvoiceService,
  FirstPlan,
];

/** Values for the fields of requests, by their proto names; where two methods differ, `Method.field` is asked first. */
const values: Readonly<Record<string, JsonObject[string]>> = {
  customer_id: "cairo-capital",
  product: "trading",
  plan: "standard",
  feature: "egx_access",
  name: "Fuzz",
  license_id: "01930000-0000-7000-8000-00000000ffff",
  reason: "fuzz",
  context: { a: "b" },
  tenant_id: "tradsys",
  metric: "orders",
  page_size: 10,
  role: "service",
  api_key_id: "0123456789abcdef",
  metadata: { note: "fuzz" },
  email: "fuzz@example.com",
  "CreateTenant.tenant_id": "fuzz",
  "CreateProduct.product": "fuzz",
  "CreateFeature.feature": "fuzz",
  "CreatePlan.plan": "fuzz",
  "CreateCustomer.customer_id": "fuzz",
  terms: { type: 2, features: ["egx_access"] },
  event: { id: "fuzz", customer_id: "cairo-capital", metric: "orders", quantity: "1", dimensions: { a: "b" } },
  events: [{ id: "fuzz", customer_id: "cairo-capital", metric: "orders", quantity: "1" }],
  start_time: "2026-01-01T00:00:00Z",
  end_time: "2026-02-01T00:00:00Z",
  month: "2026-01",
  "CheckFeatures.features": ["egx_access", "basic_trading"],
  "BatchValidate.questions": [{ customer_id: "cairo-capital", feature: "egx_access" }],
  "ValidateStream.questions": [{ customer_id: "cairo-capital", feature: "egx_access" }],
  event_id: "fuzz",
  quantity: 1,
};

/**
 * A request of each unary method, made of plausible values for the fields that it has. Not every one of them finds what
 * it names: what counts is that it decodes and passes the contract's rules, so that mutations get that far, too.
 *
 * @param id makes a text that was not used before.
 */
export function createSamples(id: () => string): Sample[] {
  return services
    .flatMap(({ methods }) => methods)
    .map((method) => ({
      method,
      path: `/${method.parent.typeName}/${method.name}`,
      operators: readPolicy(method).scope === "platform:admin",
      request: () => toBinary(method.input, fromJson(method.input, fill(method, id()))),
    }));
}

/** The sample of a method by its name. @throws Error when there is none. */
export function sampleOf(samples: readonly Sample[], name: string): Sample {
  const found = samples.find(({ method }) => method.name === name);
  if (found === undefined) throw new Error(`there is no method ${name}`);
  return found;
}

function fill(method: DescMethod, requestId: string): JsonObject {
  const json: JsonObject = {};
  const taken = new Set<string>();
  for (const { name, oneof } of method.input.fields) {
    const value = name === "request_id" ? requestId : (values[`${method.name}.${name}`] ?? values[name]);
    if (value === undefined || (oneof !== undefined && taken.has(oneof.name))) continue;
    const filled = { ...json, [name]: value };
    // A field of this name may be of another type here.
    if (!fits(method, filled)) continue;
    json[name] = value;
    if (oneof !== undefined) taken.add(oneof.name);
  }
  return json;
}

function fits({ input }: DescMethod, json: JsonObject): boolean {
  try {
    fromJson(input, json);
    return true;
  } catch {
    return false;
  }
}

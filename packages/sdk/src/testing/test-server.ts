import { randomUUID } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import {
  Enforcement,
  type FailModeSchema,
  LicenseType,
  LimitWindow,
  type ProductCatalog,
  ProductCatalogSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import {
  type EntitlementSnapshot,
  EntitlementSnapshotSchema,
} from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";

import type { LicenseStatus as StatusWord, LicenseType as TypeWord, LimitWindow as WindowWord } from "../verdict.ts";
import { type ServedFacts, TEST_TENANT, TestService, type Trouble, testServiceDefinition } from "./test-service.ts";

/** How a feature behaves. */
export interface TestFeature {
  /** Whether a suspended or expired license may still reduce what is open; false when absent. */
  readonly reduceOnly?: boolean;
  /** How long it stays allowed once facts are too old: 0 is `closed`; 300 when absent. */
  readonly failGraceSeconds?: number;
}

/** A bound on a metric. */
export interface TestLimit {
  readonly metric: string;
  /** Unlimited when absent. */
  readonly maximum?: number | bigint;
  /** `GAUGE` when absent. */
  readonly window?: WindowWord;
  /** `HARD` when absent. */
  readonly enforcement?: "HARD" | "SOFT";
}

/** A license; what is absent is as for an active one without an end. */
export interface TestLicense {
  readonly id?: string;
  readonly product: string;
  readonly plan?: string;
  readonly type?: TypeWord;
  readonly status?: StatusWord;
  /** `*`: all of the product; so when absent. */
  readonly features?: readonly string[];
  readonly grants?: readonly { readonly feature: string; readonly expiresAt?: Date; readonly configuration?: string }[];
  readonly limits?: readonly TestLimit[];
  readonly validFrom?: Date;
  readonly validUntil?: Date;
  readonly graceDays?: number;
}

/** A customer's licenses, oldest first. */
export type TestCustomer = readonly TestLicense[];

/** What the server knows at first. */
export interface TestServerOptions {
  /** The features by product. */
  readonly products?: Readonly<Record<string, Readonly<Record<string, TestFeature>>>>;
  readonly customers?: Readonly<Record<string, TestCustomer>>;
  /** The API key that it takes; a random one when absent. */
  readonly apiKey?: string;
  /** The port of 127.0.0.1; a free one when absent. */
  readonly port?: number;
}

/** A server of ValidationService for tests: it decides, and tells its watchers every change. */
export interface TestServer {
  /** `host:port`, cleartext. */
  readonly address: string;
  readonly apiKey: string;
  /** How many watches are open. */
  readonly watchers: number;
  /** How many calls have come in, by the method's name. */
  readonly calls: ReadonlyMap<string, number>;
  /** Gives a customer these licenses in place of those it had. */
  setCustomer(customerId: string, licenses: TestCustomer): void;
  /** Erases a customer. */
  removeCustomer(customerId: string): void;
  /** Gives a product these features in place of those it had. */
  setProduct(product: string, features: Readonly<Record<string, TestFeature>>): void;
  /** While it holds, changes are not told and heartbeats vouch for nothing newer: as a service cut off from its log. */
  holdFacts(hold: boolean): void;
  /** Sends each watcher a heartbeat now; it gets one each second. */
  heartbeat(): void;
  /** Ends all watches, and answers each call with this code from now on; undefined: answers again. */
  refuse(code: "UNAVAILABLE" | "UNAUTHENTICATED" | undefined): void;
  /** Forgets what resume tokens stand for: watches begin from the beginning. */
  forgetTokens(): void;
  /** Ends at once, with all calls. */
  close(): Promise<void>;
}

/** Starts a server on a free port of 127.0.0.1. */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const { apiKey = `test_${randomUUID()}`, port = 0 } = options;
  const facts: ServedFacts = { customers: new Map(), products: new Map() };
  const trouble: Trouble = { refuses: undefined, holds: false };
  const service = new TestService({ facts, trouble, apiKey });
  let version = 0n;
  const setCustomer = (customerId: string, licenses: TestCustomer): void => {
    version += 1n;
    facts.customers.set(customerId, toSnapshot(customerId, licenses, version));
    service.changed({ customerId });
  };
  const setProduct = (product: string, features: Readonly<Record<string, TestFeature>>): void => {
    version += 1n;
    facts.products.set(product, toCatalog(product, features, version));
    service.changed({ product });
  };
  for (const [product, features] of Object.entries(options.products ?? {})) setProduct(product, features);
  for (const [customerId, licenses] of Object.entries(options.customers ?? {})) setCustomer(customerId, licenses);

  const server = new grpc.Server();
  server.addService(testServiceDefinition, service.handlers);
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error, boundTo) =>
      error === null ? resolve(boundTo) : reject(error),
    );
  });
  return {
    address: `127.0.0.1:${bound}`,
    apiKey,
    calls: service.calls,
    get watchers() {
      return service.watchers;
    },
    setCustomer,
    removeCustomer(customerId) {
      facts.customers.delete(customerId);
      service.changed({ customerId });
    },
    setProduct,
    holdFacts(hold) {
      trouble.holds = hold;
      service.heartbeat();
    },
    heartbeat: () => service.heartbeat(),
    refuse(code) {
      trouble.refuses = code;
      if (code !== undefined) service.endWatches(code);
    },
    forgetTokens: () => service.forgetTokens(),
    async close() {
      service.close();
      server.forceShutdown();
    },
  };
}

const dayMs = 86_400_000;

function toSnapshot(customerId: string, licenses: TestCustomer, version: bigint): EntitlementSnapshot {
  return create(EntitlementSnapshotSchema, {
    tenantId: TEST_TENANT,
    customerId,
    version,
    licenses: licenses.map((license, index) => ({
      licenseId: license.id ?? `${customerId}-${index + 1}`,
      customerId,
      type: LicenseType[license.type ?? "STANDARD"],
      product: license.product,
      plan: license.plan ?? "",
      status: LicenseStatus[license.status ?? "ACTIVE"],
      features: [...(license.features ?? ["*"])],
      grants: (license.grants ?? []).map(({ feature, expiresAt, configuration = "" }) => ({
        feature,
        configuration,
        ...(expiresAt && { expiresAt: timestampFromDate(expiresAt) }),
      })),
      limits: (license.limits ?? []).map(toLimit),
      validFrom: timestampFromDate(license.validFrom ?? new Date(Date.now() - dayMs)),
      ...(license.validUntil && { validUntil: timestampFromDate(license.validUntil) }),
      graceDays: license.graceDays ?? 0,
      ...(isEnded(license.status) && { endedAt: timestampFromMs(Date.now()) }),
    })),
    issuedAt: timestampFromMs(Date.now()),
  });
}

function toLimit({ metric, maximum, window = "GAUGE", enforcement = "HARD" }: TestLimit) {
  return {
    metric,
    window: LimitWindow[window],
    enforcement: Enforcement[enforcement],
    ...(maximum !== undefined && { maximum: BigInt(maximum) }),
  };
}

function isEnded(status: StatusWord | undefined): boolean {
  return status === "REVOKED" || status === "CANCELLED";
}

function toCatalog(product: string, features: Readonly<Record<string, TestFeature>>, version: bigint): ProductCatalog {
  const init: MessageInitShape<typeof ProductCatalogSchema> = {
    tenantId: TEST_TENANT,
    product,
    version,
    features: Object.entries(features).map(([feature, { reduceOnly = false, failGraceSeconds = 300 }]) => ({
      feature,
      reduceOnly,
      failMode: toFailMode(failGraceSeconds),
    })),
  };
  return create(ProductCatalogSchema, init);
}

function toFailMode(graceSeconds: number): MessageInitShape<typeof FailModeSchema> {
  return graceSeconds === 0
    ? { mode: { case: "closed", value: true } }
    : { mode: { case: "graceSeconds", value: graceSeconds } };
}

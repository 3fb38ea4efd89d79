/** Aliases beside services that are away, answer nonsense, or are not known here. What they answer else: tests/mesh/aliases. */
import { createClient, type Transport } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { LicensingService } from "@licet/contracts/licensing/licensing_service_pb";
import { invalidArgument, platformError, ServiceError } from "@licet/platform/errors";
import { createLogger } from "@licet/platform/logging";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { defaults } from "../src/config.ts";
import { createValidation } from "../src/service.ts";
import { createHarness, type Harness } from "./harness.ts";

let harness: Harness;
beforeAll(async () => {
  harness = await createHarness();
});
afterAll(() => harness.close());

const logger = createLogger({ level: "silent", name: "aliases-test" });
const event = { eventId: "e1", customerId: "nile-brokers", feature: "egx_access", quantity: 1n };

/** A service that fails so. */
function failing(error: unknown): Transport {
  const fail = () => Promise.reject(error);
  return { unary: fail, stream: fail };
}

/** The aliases of an instance whose other services are these. */
function aliases(others: { licensing?: Transport; metering?: Transport }) {
  const licensing = others.licensing ?? failing(new Error("not asked"));
  const { bindings } = createValidation(defaults, { bus: harness.bus, logger, ...others, licensing });
  const pipeline = createPipeline({
    authenticate: async () => ({
      id: "lct_a",
      tenant: "tradsys",
      role: "service",
      scopes: new Set(["licenses:read", "usage:write", "usage:read"]),
      kind: "api_key",
    }),
    maxConcurrent: 10,
    maxStreams: 1,
    logger,
  });
  const headers = { "x-api-key": "lct_a.b" };
  return createClient(LicensingService, createLocalTransport({ bindings, pipeline, headers }));
}

test("without METERING_ADDRESS usage is refused, and says what is missing; the rest is served", async () => {
  const client = aliases({ licensing: failing(platformError("SCOPE_MISSING", "asked")) });
  for (const refused of [client.trackUsage(event), client.getUsageStats({ customerId: "nile-brokers" })]) {
    await expect(refused).rejects.toMatchObject({ code: "UNIMPLEMENTED", reason: "METHOD_UNKNOWN" });
    await expect(refused).rejects.toThrow(/METERING_ADDRESS/);
  }
  await expect(client.getLicense({ customerId: "nile-brokers" })).rejects.toThrow("asked");
});

const unreachable = new ServiceError({
  code: "UNAVAILABLE",
  reason: "DEPENDENCY_UNAVAILABLE",
  message: "No connection established. Last error: connect ECONNREFUSED 10.0.0.7:9090",
});

test.each([
  ["can't be reached", unreachable, { code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE", retryAfterMs: 500 }],
  [
    "says when to come back",
    platformError("DEPENDENCY_UNAVAILABLE", "10.0.0.7 is down", { retryAfterMs: 1_000 }),
    { code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE", retryAfterMs: 1_000 },
  ],
  [
    "is too slow",
    platformError("DEADLINE_EXCEEDED", "Deadline exceeded after 5s, remote_addr=10.0.0.7:9090"),
    { code: "DEADLINE_EXCEEDED", reason: "DEADLINE_EXCEEDED" },
  ],
  [
    "has a fault",
    platformError("INTERNAL", "Received RST_STREAM from 10.0.0.7"),
    { code: "INTERNAL", reason: "INTERNAL", message: "internal error" },
  ],
  [
    "has too much to do",
    platformError("OVERLOADED", "busy", { retryAfterMs: 100 }),
    { code: "UNAVAILABLE", reason: "OVERLOADED", message: "busy", retryAfterMs: 100 },
  ],
  [
    "refuses a field",
    invalidArgument("event.occurred_at", "must not lie ahead"),
    { reason: "INVALID_FIELD", message: "timestamp: must not lie ahead", violations: [{ field: "timestamp" }] },
  ],
])("usage metering %s: callers learn what helps them, and no address", async (_what, error, expected) => {
  const { trackUsage } = aliases({ metering: failing(error) });
  const caught = await trackUsage(event).catch((thrown: unknown) => thrown);
  expect(caught).toMatchObject(expected);
  expect(String(caught)).not.toContain("10.0.0.7");
});

import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { Enforcement, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { startTelemetry, type Telemetry } from "@licet/platform/telemetry";
import { createHarness, type Harness, license, snapshot, unreachable } from "./harness.ts";

let telemetry: Telemetry;
let harness: Harness;
beforeAll(async () => {
  telemetry = await startTelemetry({ serviceName: "validation", version: "0", host: "127.0.0.1", metricsPort: 0 });
  harness = await createHarness();
});
afterAll(async () => {
  await harness.close();
  await telemetry.stop();
});

test("the metrics have the names that dashboards know, and no customer in them", async () => {
  const limits = [{ metric: "users", maximum: 5n, window: LimitWindow.GAUGE, enforcement: Enforcement.HARD }];
  harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 1n, license({ limits })));
  await harness.validation.start();
  const client = harness.client();
  const ask = (customerId: string, users: string) =>
    client.validateFeature({ customerId, feature: "basic_trading", context: { users } });
  for (const [customer, users] of [
    ["nile-brokers", "5"],
    ["nile-brokers", "6"],
    ["nobody", "6"],
  ] as const) {
    await ask(customer, users);
  }
  await expect(ask("nile-brokers", "many")).rejects.toThrow();

  const text = await (await fetch(`http://127.0.0.1:${telemetry.port}/metrics`)).text();
  const samples = text.split("\n").filter((line) => line.startsWith("license_"));
  expect(samples).toEqual(
    expect.arrayContaining([
      'license_validation_requests_total{decision="ALLOW",reason="ALLOWED"} 1',
      'license_validation_requests_total{decision="DENY",reason="LIMIT_EXCEEDED"} 1',
      'license_validation_requests_total{decision="DENY",reason="NO_LICENSE"} 1',
      'license_validation_errors_total{code="INVALID_ARGUMENT"} 1',
      'license_limit_violations_total{enforcement="HARD",window="GAUGE",source="CONTEXT"} 1',
      "license_validation_duration_seconds_count 4",
      "license_cache_size 1",
      "license_cache_hit_rate 0.75",
      "license_validation_staleness_seconds 0",
    ]),
  );
  expect(text).not.toContain("nile-brokers");

  harness.licensing.before = unreachable;
  harness.clock.ms += 31_000;
  await ask("nile-brokers", "5");
  const stale = await (await fetch(`http://127.0.0.1:${telemetry.port}/metrics`)).text();
  expect(stale).toContain('license_validation_degraded_total{decision="ALLOW"} 1\n');
  expect(stale).toContain("license_validation_staleness_seconds 31\n");
});

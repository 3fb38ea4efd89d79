/** `examples/trading-gateway` as a process, against a whole Licet with its demo data. */
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { outputOf } from "@licet/platform/testing/guide";
import { until } from "@licet/platform/testing/until";
import { startLicet, type TestLicet } from "../mesh/licet.ts";

const example = path.join(import.meta.dirname, "../../examples/trading-gateway");
let licet: TestLicet;
beforeAll(async () => {
  licet = await startLicet({ seed: true });
});
afterAll(() => licet?.stop());

test("the trading gateway trades what licenses allow, and its orders are counted", async () => {
  const settings = {
    LICET_ADDRESS: new URL(licet.run.grpcUrl).host,
    LICET_API_KEY: licet.run.apiKeys.tradsys?.service,
  };
  const program = ["-C", "licet-src", path.join(example, "ts/day.ts")];
  const { stdout } = await promisify(execFile)(process.execPath, program, { env: { ...process.env, ...settings } });
  expect(stdout).toBe(outputOf("gates.md", "## A trading gateway"));

  const metering = createClient(UsageMeteringService, licet.as("tradsys", "service"));
  // The demo data has orders, too, of no exchange's feature.
  const orders = async (customerId: string, feature: string) => {
    const { totals } = await metering.getUsageStats({ customerId, metric: "orders", feature });
    return totals[0]?.events ?? 0n;
  };
  await until("the orders are counted", async () => (await orders("trial-desk", "exchange_binance")) === 5n);
  await until("the orders are counted", async () => (await orders("cairo-capital", "exchange_egx")) === 1n);
});

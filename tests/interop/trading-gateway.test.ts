/** `examples/trading-gateway` as a process, against a whole Licet with its demo data. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { until } from "@licet/platform/testing/until";
import { startLicet, type TestLicet } from "../mesh/licet.ts";

const example = path.join(import.meta.dirname, "../../examples/trading-gateway");
let licet: TestLicet;
beforeAll(async () => {
  licet = await startLicet({ seed: true });
}, 120_000);
afterAll(() => licet?.stop());

test("the trading gateway trades what licenses allow, and its orders are counted", async () => {
  const settings = {
    LICET_ADDRESS: new URL(licet.run.grpcUrl).host,
    LICET_API_KEY: licet.run.apiKeys.tradsys?.service,
  };
  const program = ["-C", "licet-src", path.join(example, "ts/day.ts")];
  const { stdout } = await promisify(execFile)(process.execPath, program, { env: { ...process.env, ...settings } });
  expect(stdout).toBe(await readFile(path.join(example, "expected.txt"), "utf8"));

  const metering = createClient(UsageMeteringService, licet.as("tradsys", "service"));
  const orders = async (customerId: string) => {
    const { totals } = await metering.getUsageStats({ customerId, metric: "orders" });
    return totals[0]?.events ?? 0n;
  };
  await until("the orders are counted", async () => (await orders("trial-desk")) === 5n);
  await until("the orders are counted", async () => (await orders("nile-brokers")) === 1n);
}, 120_000);

import { getHeapStatistics } from "node:v8";
import { createLicet, type LocalLicet } from "@licet/sdk";
import { startTestServer } from "@licet/sdk/testing";
import { type Benchmark, median, type Row } from "./report.ts";

const CUSTOMERS = 100;
const FEATURES = ["basic_trading", "egx_access", "crypto_trading", "api_access"] as const;
const CHECKS = 5_000_000;
const ROUNDS = 5;

/** What a check in `local` mode costs on a hot set, against a bare look-up in a Map by the same customer ids. */
export const sdkDecide: Benchmark = {
  about: "checks of the SDK in-process on a hot set, against one look-up in a Map by customer",
  async run() {
    const customerIds = Array.from({ length: CUSTOMERS }, (_, index) => `customer-${index}`);
    const server = await startTestServer({
      products: { trading: Object.fromEntries(FEATURES.map((feature) => [feature, {}])) },
      customers: Object.fromEntries(customerIds.map((customerId) => [customerId, [{ product: "trading" }]])),
    });
    const licet = createLicet({ mode: "local", address: server.address, apiKey: server.apiKey });
    try {
      await licet.ready();
      return measure(licet, customerIds);
    } finally {
      await licet.close();
      await server.close();
    }
  },
};

function measure(licet: LocalLicet, customerIds: readonly string[]): Row[] {
  const map = new Map(customerIds.map((customerId) => [customerId, { allowed: true }]));
  const lookUp = (count: number): number => {
    let allowed = 0;
    for (let index = 0; index < count; index++) {
      if (map.get(customerIds[index % CUSTOMERS] ?? "")?.allowed) allowed += 1;
    }
    return allowed;
  };
  const check = (count: number): number => {
    let allowed = 0;
    for (let index = 0; index < count; index++) {
      const feature = FEATURES[index & 3] ?? "";
      if (licet.check(customerIds[index % CUSTOMERS] ?? "", feature).allowed) allowed += 1;
    }
    return allowed;
  };
  for (const warmUp of [lookUp, check]) warmUp(CHECKS / 10);
  const figures = { lookUpNs: [] as number[], checkNs: [] as number[], checkBytes: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    figures.lookUpNs.push(time(() => lookUp(CHECKS)).ns);
    const { ns, bytes } = time(() => check(CHECKS));
    figures.checkNs.push(ns);
    figures.checkBytes.push(bytes);
  }
  const lookUpNs = median(figures.lookUpNs);
  const checkNs = median(figures.checkNs);
  const checkBytes = median(figures.checkBytes);
  return [
    { name: "check", baseline: lookUpNs, ours: checkNs, unit: "ns", target: "≤ 100 ns", met: checkNs <= 100 },
    {
      name: "checks",
      baseline: 1e3 / lookUpNs,
      ours: 1e3 / checkNs,
      unit: "M/s",
      target: "≥ 10 M/s per core",
      met: checkNs <= 100,
    },
    { name: "allocated", baseline: 1, ours: checkBytes, unit: "B/check", target: "none", met: checkBytes < 0.1 },
  ];
}

/** Time of the processor, so that what else runs on the machine does not count, and bytes, both for each of the checks. */
function time(run: () => number): { ns: number; bytes: number } {
  const allocatedBefore = getHeapStatistics().total_allocated_bytes;
  const before = process.cpuUsage();
  if (run() !== CHECKS) throw new Error("a check of the benchmark was denied");
  const { user, system } = process.cpuUsage(before);
  const bytes = (getHeapStatistics().total_allocated_bytes - allocatedBefore) / CHECKS;
  return { ns: ((user + system) * 1_000) / CHECKS, bytes };
}

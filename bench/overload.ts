import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { newId } from "@licet/platform/ids";
import { createChannel } from "@licet/platform/rpc/client";
import { type Child, startChild } from "./child.ts";
import type { OverloadReport, OverloadRequest } from "./overload-load.ts";
import type { Benchmark, Row } from "./report.ts";
import { type Standalone, startStandalone } from "./standalone.ts";

const TIMES = 5;
const PEAK_MS = 10_000;
const OVERLOAD_MS = 15_000;
/** More than the licenses that one customer may hold would need. */
const CUSTOMERS = 2_000;
const PRODUCT = "trading";
const RECOVERED_WITHIN_MS = 10_000;

/**
 * ProvisionLicense at five times what a whole Licet can do, in an open loop with the standard client. Goodput is what is
 * answered well and in time; a retry is what reached the server beyond one attempt for each call; wasted is what the
 * server finished for nobody.
 */
export const overload: Benchmark = {
  about: `ProvisionLicense at ${TIMES} × peak, open loop: goodput against the peak, retries, waste, memory, recovery`,
  async run() {
    const licet = await startStandalone();
    const load = startChild("./overload-load.ts", [], 1);
    try {
      return await measure(licet, load);
    } finally {
      await load.stop();
      await licet.stop();
    }
  },
};

async function measure(licet: Standalone, load: Child): Promise<Row[]> {
  const credential = await prepare(licet);
  const ask = (forMs: number, perSecond?: number) => {
    const place = { address: licet.address, credential, customers: CUSTOMERS, product: PRODUCT };
    const validUntilMs = Date.now() + 86_400_000;
    const request: OverloadRequest = { ...place, validUntilMs, forMs, perSecond, concurrency: 64 };
    return load.ask<OverloadReport>(request);
  };
  await ask(PEAK_MS / 5);
  const peak = await ask(PEAK_MS);
  const peakPerSecond = peak.ok / peak.seconds;
  print("peak", peak);

  const before = await attempts(licet);
  const memory = watchMemory(licet.pid);
  const over = await ask(OVERLOAD_MS, TIMES * peakPerSecond);
  const recoveryMs = await recovery(licet, credential);
  const after = await attempts(licet);
  const { beforeMb, peakMb } = memory.stop();
  print(`at ${TIMES} × peak`, over);
  console.log(`memory of the server: ${beforeMb} MiB before, ${peakMb} MiB at most; recovered after ${recoveryMs} ms`);

  const goodput = over.ok / (OVERLOAD_MS / 1_000);
  const retries = after.all - before.all - over.calls;
  const wasted = after.ok - before.ok - over.ok;
  const row = (name: string, baseline: number, ours: number, unit: string, target: string, met: boolean): Row => ({
    name,
    baseline,
    ours,
    unit,
    target,
    met,
  });
  return [
    row("goodput", peakPerSecond, goodput, "calls/s", "≥ 0.8 × peak", goodput >= 0.8 * peakPerSecond),
    row("retries", over.calls, retries, "calls", "≤ 0.1 × calls", retries <= 0.1 * over.calls),
    row("finished for nobody", over.ok, wasted, "calls", "≤ 0.01 × ok", wasted <= 0.01 * over.ok),
    row("memory", beforeMb, peakMb, "MiB", "≤ 256 MiB more", peakMb - beforeMb <= 256),
    row("recovery", RECOVERED_WITHIN_MS, recoveryMs, "ms", "< 10 s", recoveryMs < RECOVERED_WITHIN_MS),
  ];
}

/** A tenant with a product and customers. @returns its admin's API key. */
async function prepare({ address, operatorKey }: Standalone): Promise<string> {
  const operator = createChannel({ address, credential: operatorKey });
  const tenants = createClient(TenantService, operator);
  const { adminApiKeySecret } = await tenants.createTenant({ requestId: newId(), tenantId: "bench", name: "Bench" });
  operator.close();
  const channel = createChannel({ address, credential: adminApiKeySecret });
  const catalog = createClient(CatalogService, channel);
  const customers = createClient(CustomerService, channel);
  await catalog.createProduct({ requestId: newId(), product: PRODUCT, name: "Trading" });
  for (let index = 0; index < CUSTOMERS; index++) {
    const customerId = `customer-${index}`;
    await customers.createCustomer({ requestId: newId(), customerId, name: customerId });
  }
  channel.close();
  return adminApiKeySecret;
}

/** The attempts at ProvisionLicense that the server has answered, all and well, as its metrics count them. */
async function attempts({ metricsUrl }: Standalone): Promise<{ all: number; ok: number }> {
  const text = await (await fetch(metricsUrl)).text();
  const lines = text.split("\n").filter((line) => /^rpc_server_call_duration\w*_count\{.*ProvisionLicense"/.test(line));
  const sum = (of: readonly string[]) => of.reduce((total, line) => total + Number(line.split(" ").at(-1)), 0);
  return { all: sum(lines), ok: sum(lines.filter((line) => line.includes('status_code="OK"'))) };
}

/** Watches the resident memory of a process (Linux only; elsewhere 0). */
function watchMemory(pid: number): { stop(): { beforeMb: number; peakMb: number } } {
  const read = (): number => {
    try {
      const [, kib] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
      return Math.round(Number(kib) / 1024);
    } catch {
      return 0;
    }
  };
  const beforeMb = read();
  let peakMb = beforeMb;
  const timer = setInterval(() => {
    peakMb = Math.max(peakMb, read());
  }, 100);
  return {
    stop() {
      clearInterval(timer);
      return { beforeMb, peakMb };
    },
  };
}

/** How long after the load until 20 calls in a row are answered well within 250 ms each, in milliseconds. */
async function recovery({ address }: Standalone, credential: string): Promise<number> {
  const channel = createChannel({ address, credential });
  const licenses = createClient(LicensingService, channel);
  const begunAt = performance.now();
  for (let inARow = 0; inARow < 20 && performance.now() - begunAt < 2 * RECOVERED_WITHIN_MS; ) {
    const holder = { case: "customerId" as const, value: "customer-0" };
    inARow = await licenses.listLicenses({ holder, pageSize: 1 }, { timeoutMs: 250 }).then(
      () => inARow + 1,
      () => 0,
    );
    if (inARow === 0) await delay(10);
  }
  channel.close();
  return Math.round(performance.now() - begunAt);
}

function print(name: string, { calls, ok, failed, seconds, p50Ms, p99Ms }: OverloadReport): void {
  const errors = Object.entries(failed).map(([code, count]) => `${code} ${count}`);
  const answered = `${ok} well, p50 ${p50Ms.toFixed(0)} ms, p99 ${p99Ms.toFixed(0)} ms`;
  console.log(`${name}: ${calls} calls in ${seconds.toFixed(1)} s: ${answered}; ${errors.join(", ") || "none failed"}`);
}

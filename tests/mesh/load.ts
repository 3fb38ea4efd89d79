import { setTimeout as delay } from "node:timers/promises";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import { expect } from "@jest/globals";
import type { ServiceName } from "@licet/cli/mesh/services";
import { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { newId } from "@licet/platform/ids";
import { isDeadlineExceeded } from "@licet/platform/testing/patient";
import { until } from "@licet/platform/testing/until";
import type { TestMesh } from "./processes.ts";

const METRIC = "exchange_requests";

/** What the callers of a load remember. */
export interface Journal {
  calls: number;
  slowestMs: number;
  readonly failures: unknown[];
  readonly tracked: Set<string>;
  /** License ids. */
  readonly provisioned: Set<string>;
  readonly customerId: string;
}

/** Calls every service all the time, each caller one call after the other, over the standard client. */
export function startLoad(mesh: TestMesh): { stop(): Promise<Journal> } {
  const channel = (service: ServiceName) => mesh.all(service, "tradsys", "admin");
  const customers = createClient(CustomerService, channel("licensing"));
  const licenses = createClient(LicensingService, channel("licensing"));
  const validation = createClient(ValidationService, channel("validation"));
  const usage = createClient(UsageMeteringService, channel("usage-metering"));
  const invoices = createClient(InvoiceService, channel("billing"));
  const customerId = `load-${newId()}`;
  const journal: Journal = {
    calls: 0,
    slowestMs: 0,
    failures: [],
    tracked: new Set(),
    provisioned: new Set(),
    customerId,
  };
  let stopping = false;

  /** @param draw draws the ids of a call, and returns what makes it; made twice, it has one effect. */
  const caller = async (everyMs: number, draw: () => () => Promise<void>): Promise<void> => {
    while (!stopping) {
      const call = draw();
      const startedAt = performance.now();
      await call()
        .catch((error: unknown) => {
          // Once may be the machine, which stood still for longer than a call may take.
          if (!isDeadlineExceeded(error)) throw error;
          return call();
        })
        .catch((error: unknown) => void journal.failures.push(error));
      journal.calls += 1;
      journal.slowestMs = Math.max(journal.slowestMs, performance.now() - startedAt);
      await delay(everyMs);
    }
  };
  const track = () => {
    const id = newId();
    return async (): Promise<void> => {
      await usage.trackUsage({ event: { id, customerId, metric: METRIC, quantity: "1" } });
      journal.tracked.add(id);
    };
  };
  const provision = () => {
    const own = `load-${newId()}`;
    const request = { requestId: newId(), customerId: own, product: "trading", plan: "enterprise" };
    return async (): Promise<void> => {
      await customers.createCustomer({ requestId: own, customerId: own, name: own });
      journal.provisioned.add((await licenses.provisionLicense(request)).license?.licenseId ?? "");
    };
  };
  const validate = () => async (): Promise<void> => {
    const { valid } = await validation.validateFeature({ customerId: "cairo-capital", feature: "egx_access" });
    if (!valid) throw new Error("cairo-capital was denied");
  };
  const preview = () => async (): Promise<void> => void (await invoices.previewInvoice({ customerId: "nile-brokers" }));
  const started = customers.createCustomer({ requestId: newId(), customerId, name: "load" });
  const callers = started.then(() =>
    Promise.all([
      caller(5, validate),
      caller(5, validate),
      caller(20, track),
      caller(20, track),
      caller(50, provision),
      caller(50, preview),
    ]),
  );
  return {
    async stop() {
      stopping = true;
      await callers;
      return journal;
    },
  };
}

/** No call failed, and everything acknowledged is there, once; prints how much it was. */
export async function verify(mesh: TestMesh, journal: Journal): Promise<void> {
  const { calls, slowestMs, failures, tracked, provisioned, customerId } = journal;
  process.stdout.write(
    `${calls} calls, ${failures.length} failed, slowest ${slowestMs.toFixed(0)} ms; ` +
      `acknowledged: ${tracked.size} events, ${provisioned.size} licenses\n`,
  );
  expect(failures).toEqual([]);
  expect(calls).toBeGreaterThan(500);
  const usage = createClient(UsageMeteringService, mesh.all("usage-metering", "tradsys", "admin"));
  const licenses = createClient(LicensingService, mesh.all("licensing", "tradsys", "admin"));
  const wanted = BigInt(tracked.size);
  await until("all are counted", async () => (await countOf(usage, customerId)).events >= wanted);
  expect(await countOf(usage, customerId)).toEqual({ events: wanted, quantity: String(tracked.size) });
  for (const licenseId of provisioned) {
    expect((await licenses.getLicense({ licenseId })).license?.licenseId).toBe(licenseId);
  }
}

/** How many of a load's events are counted, and their quantity. */
export async function countOf(
  usage: Client<typeof UsageMeteringService>,
  customerId: string,
): Promise<{ events: bigint; quantity: string }> {
  const startTime = timestampFromDate(new Date(Date.now() - 86_400_000));
  const [total] = (await usage.getUsageStats({ customerId, metric: METRIC, startTime })).totals;
  return { events: total?.events ?? 0n, quantity: total?.quantity ?? "0" };
}

/** Restarts every replica one after the other, so many rounds, under the load. */
export async function restartAll(mesh: TestMesh, rounds: number): Promise<void> {
  const load = startLoad(mesh);
  const exits: number[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const { service, number } of mesh.replicas()) {
      exits.push((await mesh.restart(service, number, "SIGTERM")).endedAfterMs);
    }
  }
  await verify(mesh, await load.stop());
  process.stdout.write(`slowest of ${exits.length} exits: ${Math.max(...exits).toFixed(0)} ms\n`);
  expect(Math.max(...exits)).toBeLessThan(15_000);
}

import { setTimeout as delay } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { ServiceError } from "@licet/platform/errors";
import { newId } from "@licet/platform/ids";
import { createChannel } from "@licet/platform/rpc/client";
import { serveParent } from "./child.ts";
import { quantile } from "./report.ts";

/** What the generator is asked to do: ProvisionLicense for existing customers, with the standard client. */
export interface OverloadRequest {
  readonly address: string;
  readonly credential: string;
  /** Customers `customer-0` to `customer-(n-1)`, asked in turn. */
  readonly customers: number;
  readonly product: string;
  readonly validUntilMs: number;
  readonly forMs: number;
  /** Calls per second, at random moments, whatever is answered; undefined: a closed loop of `concurrency` callers. */
  readonly perSecond: number | undefined;
  readonly concurrency: number;
}

/** What it saw. */
export interface OverloadReport {
  readonly seconds: number;
  readonly calls: number;
  readonly ok: number;
  /** Calls by the code of their error. */
  readonly failed: Readonly<Record<string, number>>;
  /** Of what was answered well, from the moment it was due, in milliseconds. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** An overloaded client is no measure of a server: with more calls than this under way the run is given up. */
const MAX_UNDER_WAY = 50_000;

async function generate(request: OverloadRequest): Promise<OverloadReport> {
  const { address, credential, customers, product, forMs, perSecond, concurrency } = request;
  const channel = createChannel({ address, credential });
  const licenses = createClient(LicensingService, channel);
  const validUntil = { seconds: BigInt(Math.floor(request.validUntilMs / 1_000)), nanos: 0 };
  const latencies: number[] = [];
  const failed: Record<string, number> = {};
  let calls = 0;
  let underWay = 0;
  const callDueAt = async (dueAt: number): Promise<void> => {
    const customerId = `customer-${calls++ % customers}`;
    underWay++;
    try {
      await licenses.provisionLicense({ requestId: newId(), customerId, product, seats: 5, validUntil });
      latencies.push(performance.now() - dueAt);
    } catch (error) {
      const code = error instanceof ServiceError ? error.code : String(error);
      failed[code] = (failed[code] ?? 0) + 1;
    } finally {
      underWay--;
    }
  };
  const begunAt = performance.now();
  const endAt = begunAt + forMs;
  if (perSecond === undefined) {
    const loop = async (): Promise<void> => {
      while (performance.now() < endAt) await callDueAt(performance.now());
    };
    await Promise.all(Array.from({ length: concurrency }, loop));
  } else {
    const pending: Promise<void>[] = [];
    // Poisson arrivals: the moments are drawn in advance, so a slow answer does not make the next call late.
    for (let dueAt = begunAt; dueAt < endAt; dueAt += (-Math.log(1 - Math.random()) * 1_000) / perSecond) {
      const early = dueAt - performance.now();
      if (early > 1) await delay(early);
      if (underWay > MAX_UNDER_WAY) throw new Error(`more than ${MAX_UNDER_WAY} calls are under way`);
      pending.push(callDueAt(dueAt));
    }
    await Promise.all(pending);
  }
  const seconds = (performance.now() - begunAt) / 1_000;
  channel.close();
  const at = (q: number) => (latencies.length > 0 ? quantile(latencies, q) : Number.NaN);
  return { seconds, calls, ok: latencies.length, failed, p50Ms: at(0.5), p99Ms: at(0.99) };
}

serveParent((request) => generate(request as OverloadRequest));

/** The SQL by which usage metering makes events durable, sent by a bare loop of `pg`; `ingest.ts` starts it. */
import { createClient } from "@connectrpc/connect";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { createLocalTransport } from "@licet/platform/rpc/local";
import pg from "pg";
import { serveParent } from "./child.ts";
import { eventsOf, type MeteringUrls, openMetering } from "./ingest-metering.ts";
import { record } from "./replay.ts";
import type { LoadReport } from "./rounds.ts";

/** What the loop is asked to do. */
export interface BareRequest {
  readonly urls: MeteringUrls;
  /** Each has a connection of its own. */
  readonly callers: number;
  /** Events of a statement. */
  readonly batch: number;
  readonly forMs: number;
}

/** What it did, and what CPU time that took this process. */
export interface BareReport extends LoadReport {
  readonly cpuMicros: number;
}

/** The one statement that makes a batch durable, as the service sends it. */
type Statement = readonly [text: string, values: unknown[]];

async function recordStatement(urls: MeteringUrls, batch: number): Promise<Statement> {
  const opened = await openMetering(urls, createLogger({ level: "error", name: "bench" }));
  try {
    const { bindings } = opened.metering;
    const usage = createClient(UsageMeteringService, createLocalTransport({ bindings, pipeline: opened.pipeline }));
    const events = eventsOf(batch, newId);
    const { statements } = await record({ requestId: "none", customerId: "none", licenseId: "none" }, () =>
      usage.trackUsageBatch({ events }),
    );
    const [statement, ...more] = statements.filter(({ text }) => text.includes("append_records"));
    if (statement === undefined || more.length > 0) throw new Error("a batch is not one statement any more");
    return [statement.text, [...statement.values]];
  } finally {
    await opened.stop();
  }
}

const statements = new Map<number, Promise<Statement>>();

async function loop({ urls, callers, batch, forMs }: BareRequest): Promise<BareReport> {
  const recorded = statements.get(batch) ?? recordStatement(urls, batch);
  statements.set(batch, recorded);
  const [text, values] = await recorded;
  const pool = new pg.Pool({ connectionString: urls.logUrl, max: callers });
  const before = process.cpuUsage();
  const begunAt = performance.now();
  let requests = 0;
  const send = async (): Promise<void> => {
    while (performance.now() - begunAt < forMs) {
      await pool.query(text, values);
      requests += batch;
    }
  };
  await Promise.all(Array.from({ length: callers }, send));
  const seconds = (performance.now() - begunAt) / 1_000;
  const { user, system } = process.cpuUsage(before);
  await pool.end();
  return { requests, failed: 0, seconds, cpuMicros: user + system };
}

serveParent((request) => loop(request as BareRequest));

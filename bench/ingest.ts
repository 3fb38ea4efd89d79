import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { startEmbeddedPostgres } from "@licet/platform/database/embedded";
import { createLogger } from "@licet/platform/logging";
import { type Child, startChild } from "./child.ts";
import type { BareReport, BareRequest } from "./ingest-bare-load.ts";
import type { IngestRequest } from "./ingest-load.ts";
import { createMeteringDatabases, type MeteringUrls } from "./ingest-metering.ts";
import type { IngestServerReport } from "./ingest-server.ts";
import { type Benchmark, median, type Row } from "./report.ts";
import type { LoadReport } from "./rounds.ts";

const CALLERS = 16;
/** As many as a call may have. */
const BATCH = 1_000;
const ROUNDS = 3;
const WARM_UP_MS = 3_000;
const ROUND_MS = 5_000;

/** What one side did in one round. */
interface Round {
  readonly perSecond: number;
  /** Events for a second of the CPU time of its process; Postgres's own is not in it. */
  readonly perCpuSecond: number;
}

/** How many events usage metering acknowledges as durable, against its own SQL sent by a bare loop of `pg`. */
export const ingest: Benchmark = {
  about:
    `TrackUsageBatch with ${BATCH} events and TrackUsage, ${CALLERS} callers, acknowledged once durable in Postgres, ` +
    "without counting; against the same SQL in a bare pg loop",
  async run() {
    const logger = createLogger({ level: "error", name: "bench" });
    const dataDir = await mkdtemp(path.join(tmpdir(), "licet-bench-"));
    const settings = { shared_buffers: "512MB", max_connections: "100", max_wal_size: "4GB" };
    const postgres = await startEmbeddedPostgres({ dataDir, ephemeral: true, settings, logger });
    const server = startChild("ingest-server.ts", [], 0);
    // In the place of the server: it waits while the other works.
    const bare = startChild("ingest-bare-load.ts", [], 0);
    const load = startChild("ingest-load.ts", [], 1);
    try {
      const urls = await createMeteringDatabases(postgres.url, "ours");
      const bareUrls = await createMeteringDatabases(postgres.url, "bare");
      const rows: Row[] = [];
      for (const batch of [BATCH, 1]) {
        const sides = {
          bare: (forMs: number) => askBare(bare, { urls: bareUrls, callers: CALLERS, batch, forMs }),
          ours: (forMs: number) => askOurs(server, load, urls, { callers: CALLERS, batch, forMs }),
        };
        rows.push(...(await compare(batch, sides)));
      }
      return rows;
    } finally {
      await Promise.all([server, bare, load].map((child) => child.stop()));
      await postgres.stop();
    }
  },
};

async function askBare(bare: Child, request: BareRequest): Promise<Round> {
  return toRound(await bare.ask<BareReport>(request));
}

async function askOurs(
  server: Child,
  load: Child,
  urls: MeteringUrls,
  request: Omit<IngestRequest, "port">,
): Promise<Round> {
  const before = await server.ask<IngestServerReport>(urls);
  const report = await load.ask<LoadReport>({ ...request, port: before.port } satisfies IngestRequest);
  const after = await server.ask<IngestServerReport>(urls);
  return toRound({ ...report, cpuMicros: after.cpuMicros - before.cpuMicros });
}

function toRound({ requests, failed, seconds, cpuMicros }: BareReport): Round {
  if (failed > 0) throw new Error(`${failed} of ${requests} events were not accepted: the figures mean nothing`);
  return { perSecond: requests / seconds, perCpuSecond: (requests * 1e6) / cpuMicros };
}

type Side = (forMs: number) => Promise<Round>;

async function compare(batch: number, sides: Readonly<Record<"bare" | "ours", Side>>): Promise<Row[]> {
  const rounds: Record<"bare" | "ours", Round[]> = { bare: [], ours: [] };
  for (let round = 0; round <= ROUNDS; round++) {
    for (const side of ["bare", "ours"] as const) {
      const measured = await sides[side](round === 0 ? WARM_UP_MS : ROUND_MS);
      const { perSecond, perCpuSecond } = measured;
      const share = ((100 * perSecond) / perCpuSecond).toFixed(0);
      console.log(`${batch} a call, round ${round}, ${side}: ${perSecond.toFixed(0)} events/s at ${share} % of a core`);
      // The first round warms up.
      if (round > 0) rounds[side].push(measured);
    }
  }
  const figures = (of: keyof Round) => ({
    baseline: median(rounds.bare.map((round) => round[of])),
    ours: median(rounds.ours.map((round) => round[of])),
  });
  const [throughput, perCpu] = [figures("perSecond"), figures("perCpuSecond")];
  const name = batch === 1 ? "TrackUsage" : `TrackUsageBatch, ${batch} events`;
  const row = { name, ...throughput, unit: "durable events/s", target: "≥ 0.5 × its bare SQL" };
  const first: Row = { ...row, met: throughput.ours >= 0.5 * throughput.baseline };
  if (batch === 1) return [first];
  const [unit, target] = ["durable events per CPU second of the service", "≥ 50,000"];
  return [first, { name, ...perCpu, unit, target, met: perCpu.ours >= 50_000 }];
}

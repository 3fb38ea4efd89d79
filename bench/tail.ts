import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { type Child, startChild } from "./child.ts";
import { type Benchmark, median, type Row } from "./report.ts";
import type { TailReport, TailRequest } from "./tail-load.ts";
import type { ServerReport } from "./unary-server.ts";

const customers = 100_000;
const changesPerSecond = 100;
const feature = "egx_access";
const rounds = 3;
const warmUpMs = 3_000;
const roundMs = 10_000;
/** The share of a core that our server is to take. */
const load = 0.5;
const maxPerSecond = 16_000;
const searchSteps = 6;
const maxTimes = 2;
const sides = ["baseline", "ours"] as const;
const path = `/${ValidationService.typeName}/${ValidationService.method.validateFeature.name}`;

/**
 * How long answers take at half of the load that our server bears, in an open loop, while customers change. The baseline
 * is at the same rate: what of the tail is the transport's shows there.
 */
export const tail: Benchmark = {
  about:
    `ValidateFeature at half load, ${customers} customers by Zipf, ${changesPerSecond} changes/s, open loop; ` +
    "against a grpc-js server that answers constant bytes at the same rate",
  async run() {
    const servers = {
      baseline: startChild("unary-server.ts", ["baseline"], 0),
      ours: startChild("unary-server.ts", ["ours", String(customers), String(changesPerSecond)], 0),
    };
    const open = startChild("tail-load.ts", [], 1);
    try {
      return toRows(await measure(servers, open, await rateOf(servers.ours, open)));
    } finally {
      await Promise.all([servers.baseline, servers.ours, open].map((child) => child.stop()));
    }
  },
};

/**
 * The rate, in questions a second, at which the server takes its share of a core. It is searched for with questions that
 * come one by one: in a closed loop many come at once, which costs each of them far less.
 */
async function rateOf(server: Child, generator: Child): Promise<number> {
  let [tooLow, tooHigh] = [0, maxPerSecond];
  for (let step = 0; step < searchSteps; step++) {
    const perSecond = (tooLow + tooHigh) / 2;
    const { port, credential, cpuMicros } = await server.ask<ServerReport>("report");
    await generator.ask<TailReport>({ port, path, credential, customers, feature, perSecond, forMs: warmUpMs });
    const used = ((await server.ask<ServerReport>("report")).cpuMicros - cpuMicros) / (1_000 * warmUpMs);
    if (used < load) tooLow = perSecond;
    else tooHigh = perSecond;
  }
  console.log(`our server takes ${100 * load} % of a core for ${tooLow.toFixed(0)} requests/s`);
  return tooLow;
}

type Reports = Record<(typeof sides)[number], TailReport[]>;

async function measure(
  servers: Record<(typeof sides)[number], Child>,
  open: Child,
  perSecond: number,
): Promise<Reports> {
  const reports: Reports = { baseline: [], ours: [] };
  for (let round = 0; round <= rounds; round++) {
    for (const side of sides) {
      const { port, credential } = await servers[side].ask<ServerReport>("report");
      const forMs = round === 0 ? warmUpMs : roundMs;
      const request: TailRequest = { port, path, credential, customers, feature, perSecond, forMs };
      const report = await open.ask<TailReport>(request);
      const { longestGcMs } = await servers[side].ask<ServerReport>("report");
      if (report.failed > 0) throw new Error(`${report.failed} of ${report.requests} requests to ${side} failed`);
      if (round === 0) continue;
      reports[side].push(report);
      const { p50Ms, p99Ms, p999Ms } = report;
      console.log(
        `round ${round} ${side}: ${(report.requests / (forMs / 1_000)).toFixed(0)} requests/s, p50 ${p50Ms.toFixed(2)}, ` +
          `p99 ${p99Ms.toFixed(2)}, p99.9 ${p999Ms.toFixed(2)} ms; longest collection ${longestGcMs.toFixed(1)} ms`,
      );
    }
  }
  return reports;
}

function toRows(reports: Reports): Row[] {
  return (["p50Ms", "p99Ms", "p999Ms"] as const).map((of) => {
    const [baseline, ours] = sides.map((side) => median(reports[side].map((one) => one[of]))) as [number, number];
    const name = { p50Ms: "p50", p99Ms: "p99", p999Ms: "p99.9" }[of];
    const target = `≤ ${maxTimes} × constant-reply grpc-js`;
    return { name: `tail ${name}`, baseline, ours, unit: "ms", target, met: ours <= maxTimes * baseline };
  });
}

import { createClient } from "@connectrpc/connect";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { createChannel } from "@licet/platform/rpc/client";
import { type Child, canPin, startChild } from "./child.ts";
import { median } from "./report.ts";
import type { ServerReport } from "./unary-server.ts";

const rounds = 5;
const warmUpMs = 2_000;
const roundMs = 3_000;

/** What a generator did. */
export interface LoadReport {
  /** Requests, or questions, that were answered. */
  readonly requests: number;
  /** Those that did not end well. */
  readonly failed: number;
  readonly seconds: number;
}

/** A server, and what is done to it. */
export interface Side {
  /** An argument of unary-server.ts. */
  readonly server: "baseline" | "ours";
  /** The message for the generator. */
  load(at: Pick<ServerReport, "port" | "credential">, forMs: number): object;
}

/** What of each side is a request, in the plural and for people, such as `requests`. */
interface Duel {
  readonly sides: Readonly<Record<"baseline" | "ours", Side>>;
  /** The generator's program. */
  readonly generator: string;
  readonly what: string;
}

/**
 * How much a server does in a second of its own CPU time, the median of some rounds in which the sides take turns. Unlike
 * plain throughput that is not flattered by a generator that can't saturate the server, nor spoilt by other work on the
 * machine.
 */
export async function perCpuSecond({ sides, generator, what }: Duel): Promise<{ baseline: number; ours: number }> {
  const load = startChild(generator, [], 1);
  const servers = {
    baseline: startChild("unary-server.ts", [sides.baseline.server], 0),
    ours: startChild("unary-server.ts", [sides.ours.server], 0),
  };
  const measured = { baseline: [] as number[], ours: [] as number[] };
  try {
    if (!canPin) console.log("taskset is not here: server and load share all cores");
    for (const side of ["baseline", "ours"] as const) {
      const at = await servers[side].ask<ServerReport>("report");
      await checkAnswer(at);
      await load.ask<LoadReport>(sides[side].load(at, warmUpMs));
    }
    for (let round = 1; round <= rounds; round++) {
      for (const side of ["baseline", "ours"] as const) {
        measured[side].push(await measure(servers[side], load, sides[side], `round ${round} ${side}`, what));
      }
    }
  } finally {
    await Promise.all([servers.baseline, servers.ours, load].map((child) => child.stop()));
  }
  return { baseline: median(measured.baseline), ours: median(measured.ours) };
}

async function measure(server: Child, load: Child, side: Side, name: string, what: string): Promise<number> {
  const before = await server.ask<ServerReport>("report");
  const { requests, failed, seconds } = await load.ask<LoadReport>(side.load(before, roundMs));
  const after = await server.ask<ServerReport>("report");
  if (failed > 0) throw new Error(`${failed} of ${requests} ${what} failed: the figures mean nothing`);
  const cpuSeconds = (after.cpuMicros - before.cpuMicros) / 1e6;
  const busy = ((100 * cpuSeconds) / seconds).toFixed(0);
  console.log(
    `${name}: ${(requests / seconds).toFixed(0)} ${what}/s, server at ${busy} % of a core, ` +
      `${((1e6 * cpuSeconds) / requests).toFixed(2)} µs of CPU each`,
  );
  return requests / cpuSeconds;
}

/** Asks once with a real client, so that what is measured is known to be the answer. */
async function checkAnswer({ port, credential }: ServerReport): Promise<void> {
  const channel = createChannel({ address: `127.0.0.1:${port}`, credential });
  try {
    const question = { customerId: "customer-4711", feature: "egx_access" };
    const reply = await createClient(ValidationService, channel).validateFeature(question, { timeoutMs: 10_000 });
    if (!reply.valid) throw new Error(`the server on port ${port} denies: ${reply.violations.join(" ")}`);
  } finally {
    channel.close();
  }
}

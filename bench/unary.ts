import { create, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import {
  type ValidateFeatureRequest,
  ValidateFeatureRequestSchema,
  ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { createChannel } from "@licet/platform/rpc/client";
import { type Child, canPin, startChild } from "./child.ts";
import { type Benchmark, median, type Row } from "./report.ts";
import type { LoadReport, LoadRequest } from "./unary-load.ts";
import type { ServerReport } from "./unary-server.ts";

const rounds = 5;
const warmUpMs = 2_000;
const roundMs = 3_000;
const sides = ["baseline", "ours"] as const;

/** What one round of one side measured. */
interface Measured {
  readonly requestsPerCpuSecond: number;
  readonly requestsPerSecond: number;
}

/**
 * How much of a core a ValidateFeature costs the server. What counts is
 * requests per second of the server's own CPU time: unlike plain throughput it
 * is not flattered by a generator that can't saturate the server, nor spoilt
 * by other work on the machine.
 */
export const unary: Benchmark = {
  about: "ValidateFeature through the whole pipeline over gRPC, against a grpc-js server that answers constant bytes",
  async run() {
    const servers = {
      baseline: startChild("unary-server.ts", ["baseline"], 0),
      ours: startChild("unary-server.ts", ["ours"], 0),
    };
    const load = startChild("unary-load.ts", [], 1);
    try {
      if (!canPin) console.log("taskset is not here: server and load share all cores");
      const measured = await measure(servers, load);
      return [toRow(measured)];
    } finally {
      await Promise.all([servers.baseline, servers.ours, load].map((child) => child.stop()));
    }
  },
};

async function measure(
  servers: Readonly<Record<(typeof sides)[number], Child>>,
  load: Child,
): Promise<Record<(typeof sides)[number], Measured[]>> {
  const measured: Record<(typeof sides)[number], Measured[]> = { baseline: [], ours: [] };
  for (const side of sides) {
    const { port, credential } = await servers[side].ask<ServerReport>("report");
    await checkAnswer(port, credential);
    await load.ask<LoadReport>(loadOf({ port, credential }, warmUpMs));
  }
  for (let round = 1; round <= rounds; round++) {
    for (const side of sides) {
      const before = await servers[side].ask<ServerReport>("report");
      const { requests, failed, seconds } = await load.ask<LoadReport>(loadOf(before, roundMs));
      const after = await servers[side].ask<ServerReport>("report");
      if (failed > 0) throw new Error(`${failed} of ${requests} requests to ${side} failed: the figures mean nothing`);
      const cpuSeconds = (after.cpuMicros - before.cpuMicros) / 1e6;
      measured[side].push({ requestsPerCpuSecond: requests / cpuSeconds, requestsPerSecond: requests / seconds });
      const busy = ((100 * cpuSeconds) / seconds).toFixed(0);
      console.log(
        `round ${round} ${side}: ${(requests / seconds).toFixed(0)} requests/s, server at ${busy} % of a core, ` +
          `${((1e6 * cpuSeconds) / requests).toFixed(1)} µs of CPU each`,
      );
    }
  }
  return measured;
}

function toRow({ baseline, ours }: Record<(typeof sides)[number], Measured[]>): Row {
  const capacity = (side: Measured[]) => median(side.map(({ requestsPerCpuSecond }) => requestsPerCpuSecond));
  const row = { baseline: capacity(baseline), ours: capacity(ours) };
  return {
    name: "unary ValidateFeature",
    ...row,
    unit: "requests per CPU second",
    target: "≥ 0.9 × constant-reply grpc-js",
    met: row.ours >= 0.9 * row.baseline,
  };
}

const request: ValidateFeatureRequest = create(ValidateFeatureRequestSchema, {
  customerId: "customer-4711",
  feature: "egx_access",
});

function loadOf({ port, credential }: Pick<ServerReport, "port" | "credential">, forMs: number): LoadRequest {
  const path = `/${ValidationService.typeName}/${ValidationService.method.validateFeature.name}`;
  const body = Buffer.from(toBinary(ValidateFeatureRequestSchema, request)).toString("base64");
  return { port, path, credential, body, forMs, concurrency: 64 };
}

/** Asks once with a real client, so that what is measured is known to be the answer. */
async function checkAnswer(port: number, credential: string): Promise<void> {
  const channel = createChannel({ address: `127.0.0.1:${port}`, credential });
  try {
    const reply = await createClient(ValidationService, channel).validateFeature(request, { timeoutMs: 10_000 });
    if (!reply.valid) throw new Error(`the server on port ${port} denies: ${reply.violations.join(" ")}`);
  } finally {
    channel.close();
  }
}

/** Usage metering over gRPC, which accepts and does not count; `ingest.ts` starts it. */
import { createLogger } from "@licet/platform/logging";
import { createGrpcServer } from "@licet/platform/rpc/grpc";
import { startTelemetry } from "@licet/platform/telemetry";
import { serveParent } from "./child.ts";
import { type MeteringUrls, openMetering } from "./ingest-metering.ts";

/** Where it is, and what it has used up so far. */
export interface IngestServerReport {
  readonly port: number;
  readonly cpuMicros: number;
}

async function serve(urls: MeteringUrls): Promise<number> {
  const logger = createLogger({ level: "error", name: "bench" });
  await startTelemetry({ serviceName: "bench", version: "0", host: "127.0.0.1", metricsPort: 0 });
  const { metering, pipeline } = await openMetering(urls, logger);
  const { bindings } = metering;
  const server = createGrpcServer({ bindings: [...bindings], pipeline, host: "127.0.0.1", port: 0, logger });
  return (await server.start()).port;
}

let serving: Promise<number> | undefined;
serveParent(async (urls): Promise<IngestServerReport> => {
  serving ??= serve(urls as MeteringUrls);
  const port = await serving;
  const { user, system } = process.cpuUsage();
  return { port, cpuMicros: user + system };
});

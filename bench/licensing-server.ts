import type { Credential } from "@licet/platform/credentials";
import type { EventBus } from "@licet/platform/events/bus";
import { createLogger } from "@licet/platform/logging";
import { createGrpcServer } from "@licet/platform/rpc/grpc";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { serveParent } from "./child.ts";
import { createBenchLicensing, type LicensingUrls, scopesOfAdmin, TENANT } from "./licensing.ts";

/** A log that takes everything at once: what is measured ends at the commit. */
const bus: EventBus = {
  publish: async () => undefined,
  heartbeat: async () => undefined,
  id: async () => "none",
  endOffsets: async () => [],
  subscribe: () => Promise.reject(new Error("licensing subscribes to nothing")),
  stop: async () => undefined,
};

async function serve(urls: LicensingUrls): Promise<number> {
  const logger = createLogger({ level: "error", name: "bench" });
  const licensing = createBenchLicensing(urls, bus, logger);
  licensing.start();
  const admin: Credential = { id: "bench", tenant: TENANT, role: "admin", scopes: scopesOfAdmin, kind: "api_key" };
  const pipeline = createPipeline({ authenticate: async () => admin, maxConcurrent: 500, maxStreams: 10, logger });
  const server = createGrpcServer({ bindings: licensing.bindings, pipeline, host: "127.0.0.1", port: 0, logger });
  return (await server.start()).port;
}

let serving: Promise<number> | undefined;
serveParent((urls) => {
  serving ??= serve(urls as LicensingUrls);
  return serving;
});

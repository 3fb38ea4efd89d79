import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { whyNoKafka } from "@licet/platform/local/kafka-release";
import { canPin } from "./child.ts";

/** A mesh of one process for each service. */
export interface Mesh {
  /** What its events go through. */
  readonly events: "Kafka" | "Postgres";
  readonly operatorKey: string;
  /** `host:port` of a service's gRPC. */
  address(service: "licensing" | "validation"): string;
  stop(): Promise<void>;
}

/** What of the mesh's line of JSON is used here. */
interface MeshLine {
  readonly replicas: readonly { readonly service: string; readonly grpcUrl: string }[];
  readonly apiKeys: { readonly platform: { readonly operator: string } };
}

/**
 * Starts one as `pnpm mesh` does, on free ports and new data, without demo data; where possible all of it on one core. Its
 * events go through Kafka where that can be run here, and else through Postgres.
 */
export async function startMesh(core: number): Promise<Mesh> {
  const missing = whyNoKafka();
  if (missing !== undefined) console.log(`the events go through Postgres: ${missing}`);
  const events = missing === undefined ? "Kafka" : "Postgres";
  const main = fileURLToPath(new URL("../packages/cli/src/mesh.ts", import.meta.url));
  const flags = ["--ephemeral", "--no-seed", "--free-ports", "--json", "--events", events.toLowerCase()];
  const node = [process.execPath, "-C", "licet-src", main, ...flags];
  const [program = "", ...args] = canPin ? ["taskset", "-c", String(core), ...node] : node;
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const { replicas, apiKeys } = JSON.parse(await firstLine(child)) as MeshLine;
  return {
    events,
    operatorKey: apiKeys.platform.operator,
    address(service) {
      const found = replicas.find((replica) => replica.service === service);
      if (found === undefined) throw new Error(`the mesh has no ${service}`);
      return new URL(found.grpcUrl).host;
    },
    async stop() {
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    },
  };
}

async function firstLine({ stdout }: ChildProcess): Promise<string> {
  if (stdout === null) throw new Error("the mesh has no output");
  for await (const line of createInterface({ input: stdout })) return line;
  throw new Error("the mesh ended before it served");
}

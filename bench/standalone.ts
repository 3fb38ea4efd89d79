import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** A whole Licet in a process of its own. */
export interface Standalone {
  readonly pid: number;
  /** `host:port` of gRPC. */
  readonly address: string;
  readonly metricsUrl: string;
  readonly operatorKey: string;
  stop(): Promise<void>;
}

/** Starts one on free ports and new data, without demo data. */
export async function startStandalone(): Promise<Standalone> {
  const main = fileURLToPath(new URL("../services/standalone/src/main.ts", import.meta.url));
  const ports = ["grpc", "web", "metrics"].flatMap((name) => [`--${name}-port`, "0"]);
  const child = spawn(process.execPath, ["-C", "licet-src", main, "--ephemeral", "--no-seed", "--json", ...ports], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const { pid, grpcUrl, metricsUrl, apiKeys } = JSON.parse(await firstLine(child)) as {
    pid: number;
    grpcUrl: string;
    metricsUrl: string;
    apiKeys: { platform: { operator: string } };
  };
  return {
    pid,
    address: new URL(grpcUrl).host,
    metricsUrl,
    operatorKey: apiKeys.platform.operator,
    async stop() {
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    },
  };
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error("the standalone process has no output");
  for await (const line of createInterface({ input: child.stdout })) return line;
  throw new Error("the standalone process ended before it served");
}

import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { findProcesses } from "@licet/platform/processes";
import { isAlive } from "@licet/standalone/data-dir";
import { STOP_WITHIN_MS } from "./replica.ts";
import { readFormer } from "./report.ts";
import { serviceNames } from "./services.ts";

/**
 * Waits until the replicas of an earlier run that was killed have ended: they notice it and finish what is under way, and
 * have their ports until then. What still runs after as long as a replica may take is left alone.
 *
 * @param path of the mesh.json of that run.
 */
export async function formerReplicasEnded(path: string): Promise<void> {
  const { pid, replicas } = await readFormer(path);
  if (pid === undefined || isAlive(pid)) return;
  const programs = serviceNames.map((service) => ` ${fileURLToPath(import.meta.resolve(`@licet/${service}/main`))}`);
  const pids = new Set(replicas.map((replica) => replica.pid));
  for (const giveUpAt = performance.now() + STOP_WITHIN_MS; performance.now() < giveUpAt; await delay(50)) {
    const running = await findProcesses((command) => programs.some((program) => command.endsWith(program)));
    if (!running.some((one) => pids.has(one))) return;
  }
}

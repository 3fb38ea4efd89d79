import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TrackUsageBatchRequestSchema } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { Config } from "../src/config.ts";
import type { LogPath } from "./faulty-log.ts";

type Request = MessageInitShape<typeof TrackUsageBatchRequestSchema>;

/** A call of TrackUsageBatch as it goes to the victim. */
export interface TrackCall {
  readonly number: number;
  readonly request: Request;
}

/** How a call ended. */
export interface TrackEnd {
  readonly number: number;
  readonly error?: string;
}

/** What the victim is started with. */
export interface VictimOptions {
  readonly config: Config;
  readonly log: LogPath;
  readonly tenant: string;
}

/** Usage metering in a process of its own. */
export interface Victim {
  trackUsageBatch(request: Request): Promise<void>;
  /** Ends it by SIGKILL and waits for its end; calls under way fail. */
  kill(): Promise<void>;
}

/** Starts the victim and waits until it serves. */
export async function startVictim(options: VictimOptions): Promise<Victim> {
  const program = fileURLToPath(new URL("./victim.ts", import.meta.url));
  const child = spawn(process.execPath, ["-C", "licet-src", program, JSON.stringify(options)], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const waiting = new Map<number, (end: TrackEnd) => void>();
  const gone = once(child, "exit").then(() => {
    for (const [number, end] of waiting) end({ number, error: "the process has ended" });
  });
  child.on("message", (end: TrackEnd | "ready") => {
    if (end !== "ready") waiting.get(end.number)?.(end);
  });
  const ready = await Promise.race([once(child, "message"), gone]);
  if (ready === undefined) throw new Error("the victim ended before it served");
  let calls = 0;
  return {
    async trackUsageBatch(request) {
      const number = ++calls;
      const { promise, resolve } = Promise.withResolvers<TrackEnd>();
      waiting.set(number, resolve);
      child.send({ number, request } satisfies TrackCall);
      const { error } = await promise;
      waiting.delete(number);
      if (error !== undefined) throw new Error(error);
    },
    async kill() {
      child.kill("SIGKILL");
      await gone;
    },
  };
}

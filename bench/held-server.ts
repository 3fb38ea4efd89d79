/** A server that holds many streams; `held.ts` starts it, with --expose-gc. */
import { setTimeout as delay } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";
import { serveParent } from "./child.ts";
import { type RunningValidation, startValidation } from "./unary-validation.ts";

/** Where it is, and what memory it holds once all that is dead was collected. */
export interface HeldServerReport {
  readonly port: number;
  readonly credential: string;
  /** All of the process that is in memory, in KiB. */
  readonly rssKib: number;
  /** Of it, live objects and buffers, in KiB. */
  readonly liveKib: number;
}

/** What it may be asked to do beside its report: to apply so many changes of customers, at a steady rate. */
export interface ChangeRequest {
  readonly changes: number;
  readonly perSecond: number;
}

/** The methods of the bare server: a message at once and one each second, and one for each that comes. */
export const BARE_WATCH = "/bench.Held/Watch";
export const BARE_CONVERSE = "/bench.Held/Converse";

/** Customers that our server knows. */
export const CUSTOMERS = 1_000;
/** As many streams as a replica can be set to hold. */
const MAX_STREAMS = 10_000;
/** Longer than anything here takes: what slow readers cost at most is to be seen, not that they are cut off. */
const SLOW_AFTER_MS = 300_000;
const HEARTBEAT_MS = 1_000;
/** About as large as a heartbeat of ours. */
const HEARTBEAT_BYTES = 60;
/** How often changes are applied, in milliseconds, and how many at once at most. */
const CHANGES_MS = 10;
const MAX_AT_ONCE = 500;

type Running = Pick<RunningValidation, "port" | "credential" | "change">;

/** Ours: the validation service, set to hold as much as can be set. */
function startOurs(): Promise<Running> {
  const watches = {
    maxTotal: MAX_STREAMS,
    maxPerTenant: MAX_STREAMS,
    slowAfterMs: SLOW_AFTER_MS,
    heartbeatMs: HEARTBEAT_MS,
  };
  return startValidation({ customers: CUSTOMERS, changesPerSecond: 0 }, { maxStreams: MAX_STREAMS, watches });
}

/** The baseline: grpc-js with handlers that know nothing. */
async function startBare(): Promise<Running> {
  const server = new grpc.Server();
  const asIs = (bytes: Buffer): Buffer => bytes;
  const codec = {
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
  const heartbeat = Buffer.alloc(HEARTBEAT_BYTES);
  server.addService(
    {
      watch: { path: BARE_WATCH, requestStream: false, responseStream: true, ...codec },
      converse: { path: BARE_CONVERSE, requestStream: true, responseStream: true, ...codec },
    },
    {
      watch(call: grpc.ServerWritableStream<Buffer, Buffer>) {
        call.write(heartbeat);
        const timer = setInterval(() => call.write(heartbeat), HEARTBEAT_MS);
        call.once("cancelled", () => clearInterval(timer));
      },
      converse(call: grpc.ServerDuplexStream<Buffer, Buffer>) {
        call.on("data", (message: Buffer) => call.write(message));
        call.on("end", () => call.end());
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return { port, credential: "none-is-needed", change: async () => undefined };
}

async function applyChanges({ change }: Running, { changes, perSecond }: ChangeRequest): Promise<void> {
  const begunAt = performance.now();
  for (let applied = 0; applied < changes; ) {
    const due = Math.ceil(((performance.now() - begunAt) * perSecond) / 1_000);
    const next = Math.min(changes, due, applied + MAX_AT_ONCE);
    await change(next - applied);
    applied = next;
    await delay(CHANGES_MS);
  }
}

function report({ port, credential }: Running): HeldServerReport {
  // Twice: what the first one finds dead may hold buffers that only the second one frees.
  for (let round = 0; round < 2; round++) globalThis.gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { port, credential, rssKib: rss / 1_024, liveKib: (heapUsed + external) / 1_024 };
}

if (import.meta.main) {
  const starting = process.argv[2] === "ours" ? startOurs() : startBare();
  serveParent(async (request) => {
    const running = await starting;
    if (request === "report") return report(running);
    // Without a report: its collections would be what a canary notices.
    await applyChanges(running, request as ChangeRequest);
    return "applied";
  });
}

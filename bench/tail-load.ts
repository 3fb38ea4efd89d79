import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { ValidateFeatureRequestSchema } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { serveParent } from "./child.ts";
import { connectRaw } from "./raw-unary.ts";
import { quantile } from "./report.ts";
import { frame } from "./unary-call.ts";
import { createZipf } from "./zipf.ts";

/** What the generator is asked to do: questions at random moments about customers, some of them far more often than others. */
export interface TailRequest {
  readonly port: number;
  readonly path: string;
  readonly credential: string;
  /** `customer-0` to `customer-(n-1)`. */
  readonly customers: number;
  readonly feature: string;
  /** Questions a second, whatever is answered. */
  readonly perSecond: number;
  readonly forMs: number;
}

/** What it saw: times from the moment at which each question was due, in milliseconds. */
export interface TailReport {
  readonly requests: number;
  readonly failed: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
}

/** So many that what piles up while a server pauses stays below the 1,000 streams that a connection may have open. */
const connections = 16;
const exponent = 1;
/** An overloaded generator is no measure of a server: with more under way than this the run is given up. */
const MAX_UNDER_WAY = 20_000;

async function generate(request: TailRequest): Promise<TailReport> {
  const { port, path, credential, customers, feature, perSecond, forMs } = request;
  const zipf = createZipf(customers, exponent);
  const headers = {
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
    authorization: `Bearer ${credential}`,
  };
  const open = await Promise.all(Array.from({ length: connections }, () => connectRaw(port, headers)));
  const latencies: number[] = [];
  let failed = 0;
  let requests = 0;
  const askDueAt = (dueAt: number): void => {
    const question = { customerId: `customer-${zipf.draw(Math.random())}`, feature };
    const bytes = toBinary(ValidateFeatureRequestSchema, create(ValidateFeatureRequestSchema, question));
    open[requests++ % connections]?.ask(frame(bytes), (status) => {
      if (status === "0") latencies.push(performance.now() - dueAt);
      else failed++;
    });
  };
  const underWay = (): number => requests - latencies.length - failed;
  const endAt = performance.now() + forMs;
  // Poisson arrivals: the moments are drawn in advance, so a slow answer does not make the next question late.
  for (let dueAt = performance.now(); dueAt < endAt; dueAt += (-Math.log(1 - Math.random()) * 1_000) / perSecond) {
    // Timers wake by the millisecond, which is long here.
    while (dueAt > performance.now()) await nextTurn();
    if (underWay() > MAX_UNDER_WAY) throw new Error("the server can't keep up with half its rate");
    askDueAt(dueAt);
  }
  while (underWay() > 0) await delay(1);
  for (const connection of open) connection.close();
  const [p50Ms, p99Ms, p999Ms] = [0.5, 0.99, 0.999].map((q) => quantile(latencies, q)) as [number, number, number];
  return { requests, failed, p50Ms, p99Ms, p999Ms };
}

serveParent((request) => generate(request as TailRequest));

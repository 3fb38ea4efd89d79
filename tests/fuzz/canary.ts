/**
 * A well-behaved client in a process of its own: asks ValidateFeature at a steady rate, whether the last answer has come
 * or not, and measures from when the question was due. Told anything, it answers with what it saw since the last time.
 */
import { createClient } from "@connectrpc/connect";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { createChannel } from "@licet/platform/rpc/client";

/** What the canary saw in one phase; times in milliseconds. */
export interface CanaryReport {
  readonly calls: number;
  readonly failures: number;
  /** The first failure's text. */
  readonly failure: string | undefined;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

const EVERY_MS = 20;
/** Later than this an answer is a failure, in milliseconds. */
const TIMEOUT_MS = 30_000;

const [address = "", credential = ""] = process.argv.slice(2);
const channel = createChannel({ address, credential });
const client = createClient(ValidationService, channel);
let times: number[] = [];
let failures = 0;
let failure: string | undefined;

async function ask(dueAt: number): Promise<void> {
  try {
    await client.validateFeature({ customerId: "cairo-capital", feature: "egx_access" }, { timeoutMs: TIMEOUT_MS });
  } catch (error) {
    failures += 1;
    failure ??= String(error);
  }
  times.push(performance.now() - dueAt);
}

function report(): CanaryReport {
  const sorted = times.sort((a, b) => a - b);
  const at = (share: number) => Math.round((sorted[Math.floor((sorted.length - 1) * share)] ?? 0) * 10) / 10;
  const seen = { calls: sorted.length, failures, failure, p50: at(0.5), p99: at(0.99), max: at(1) };
  times = [];
  failures = 0;
  failure = undefined;
  return seen;
}

let dueAt = performance.now();
setInterval(() => {
  for (; dueAt <= performance.now(); dueAt += EVERY_MS) void ask(dueAt);
}, EVERY_MS / 4);
process.on("message", () => process.send?.(report()));
process.on("disconnect", () => process.exit(0));

import { customerId } from "./cache-data.ts";
import { serveParent } from "./child.ts";
import { median } from "./report.ts";

/** Which side is to be filled, and with how many customers. */
export interface MemoryRequest {
  readonly side: "baseline" | "ours";
  readonly customers: number;
}

/** What that took. */
export interface MemoryReport {
  /** Bytes of the heap and of buffers outside of it, beyond the customers' ids. */
  readonly bytesPerCustomer: number;
  /** How long a full collection that was asked for takes with all in memory, the middle of five. */
  readonly fullGcMs: number;
  /** What it took more once each customer had been asked about. */
  readonly askedBytes: number;
}

/** What holds customers, by their numbers. */
export interface Holder {
  /** Takes over customers 0 to `customers - 1`. */
  fill(customers: number): void;
  /** Asks about a customer. @throws Error when it is not there. */
  ask(index: number): void;
}

const GC_ROUNDS = 5;
const WARM_UP = 1_000;

function collect(): void {
  // Twice: what the first one finds dead may hold buffers that only the second one frees.
  for (let round = 0; round < 2; round++) globalThis.gc?.();
}

function usedBytes(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** What the ids alone take, each in one piece. */
function idBytes(customers: number): number {
  const before = usedBytes();
  const ids = Array.from({ length: customers }, (_, index) => Buffer.from(customerId(index)).toString("latin1"));
  const after = usedBytes();
  // Kept until here; the array's own places are no part of an id.
  return after - before - ids.length * 8;
}

function measure(open: (side: MemoryRequest["side"]) => Holder, { side, customers }: MemoryRequest): MemoryReport {
  // What the engine compiles and keeps on the way is no part of what is held.
  const warm = open(side);
  warm.fill(WARM_UP);
  for (let index = 0; index < WARM_UP; index++) warm.ask(index);
  const ids = idBytes(customers);
  const before = usedBytes();
  const holder = open(side);
  holder.fill(customers);
  const filled = usedBytes();
  const pauses = Array.from({ length: GC_ROUNDS }, () => {
    const begunAt = performance.now();
    globalThis.gc?.();
    return performance.now() - begunAt;
  });
  for (let index = 0; index < customers; index++) holder.ask(index);
  const askedBytes = usedBytes() - filled;
  // Held until here, as it was when `before` was taken.
  warm.ask(0);
  return { bytesPerCustomer: (filled - before - ids) / customers, fullGcMs: median(pauses), askedBytes };
}

/** Measures what the parent asks for. */
export function serveMemory(open: (side: MemoryRequest["side"]) => Holder): void {
  serveParent(async (request) => measure(open, request as MemoryRequest));
}

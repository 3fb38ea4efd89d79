import { fromBinary } from "@bufbuild/protobuf";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { toSnapshot } from "@licet/decide/from-wire";
import { createPlainStore, type ReplicaStore } from "@licet/platform/replica-store";
import { createSnapshotStore, type Entry, toKey } from "@licet/validation/cache/snapshot-store";
import { customerId, snapshotBytes, tenant } from "./cache-data.ts";
import { serveParent } from "./child.ts";
import { median } from "./report.ts";

/** Which store is to be filled, and with how many customers. */
export interface MemoryRequest {
  readonly side: "baseline" | "ours";
  readonly customers: number;
}

/** What that took. */
export interface MemoryReport {
  /** Bytes of the heap and of buffers outside of it, beyond the customers' ids. */
  readonly bytesPerCustomer: number;
  /** How long a full collection that was asked for takes with the store in memory, the middle of five. */
  readonly fullGcMs: number;
  /** What the store took more once each customer had been asked about. */
  readonly askedBytes: number;
}

const GC_ROUNDS = 5;

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

function fill(store: ReplicaStore<Entry>, customers: number): void {
  for (let index = 0; index < customers; index++) {
    // As the log brings it: nothing is shared with the snapshot before.
    const snapshot = toSnapshot(fromBinary(EntitlementSnapshotSchema, snapshotBytes(index)));
    const entry: Entry = { version: snapshot.version, snapshot, source: "MEMORY", readAtMs: 0, dueAtS: 300 };
    store.set(toKey(tenant, snapshot.customerId), entry);
  }
}

function measure({ side, customers }: MemoryRequest): MemoryReport {
  const open = (): ReplicaStore<Entry> => (side === "ours" ? createSnapshotStore() : createPlainStore<Entry>());
  // What the engine compiles and keeps on the way is no part of the store.
  const warm = open();
  fill(warm, 1_000);
  for (let index = 0; index < 1_000; index++) warm.get(toKey(tenant, customerId(index)));
  const ids = idBytes(customers);
  const before = usedBytes();
  const store = open();
  fill(store, customers);
  const filled = usedBytes();
  const pauses = Array.from({ length: GC_ROUNDS }, () => {
    const begunAt = performance.now();
    globalThis.gc?.();
    return performance.now() - begunAt;
  });
  for (let index = 0; index < customers; index++) {
    if (store.get(toKey(tenant, customerId(index))) === undefined) throw new Error(`customer ${index} is not there`);
  }
  const askedBytes = usedBytes() - filled;
  if (store.size !== customers || warm.size !== 1_000) throw new Error("a store has lost customers");
  return { bytesPerCustomer: (filled - before - ids) / customers, fullGcMs: median(pauses), askedBytes };
}

serveParent(async (request) => measure(request as MemoryRequest));

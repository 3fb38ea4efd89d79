import { fromBinary } from "@bufbuild/protobuf";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { toSnapshot } from "@licet/decide/from-wire";
import { createPlainStore, type ReplicaStore } from "@licet/platform/replica-store";
import { createSnapshotStore, type Entry, toKey } from "@licet/validation/cache/snapshot-store";
import { customerId, snapshotBytes, tenant } from "./cache-data.ts";
import { type Holder, serveMemory } from "./memory-process.ts";

function hold(store: ReplicaStore<Entry>): Holder {
  return {
    fill(customers) {
      for (let index = 0; index < customers; index++) {
        // As the log brings it: nothing is shared with the snapshot before.
        const snapshot = toSnapshot(fromBinary(EntitlementSnapshotSchema, snapshotBytes(index)));
        const entry: Entry = { version: snapshot.version, snapshot, source: "MEMORY", readAtMs: 0, dueAtS: 300 };
        store.set(toKey(tenant, snapshot.customerId), entry);
      }
    },
    ask(index) {
      if (store.get(toKey(tenant, customerId(index))) === undefined) throw new Error(`customer ${index} is not there`);
    },
  };
}

serveMemory((side) => hold(side === "ours" ? createSnapshotStore() : createPlainStore<Entry>()));

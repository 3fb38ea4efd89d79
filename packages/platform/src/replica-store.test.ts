import fc from "fast-check";
import { createPlainStore } from "./replica-store.ts";
import { replicaStoreConformance } from "./testing/replica-store-conformance.ts";

replicaStoreConformance("a plain store", createPlainStore<{ readonly version: bigint }>, () =>
  fc.record({ version: fc.bigInt() }),
);

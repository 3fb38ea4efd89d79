import { describe, expect, test } from "@jest/globals";
import { anyLicense } from "@licet/decide/testing/any-license";
import { replicaStoreConformance } from "@licet/platform/testing/replica-store-conformance";
import fc from "fast-check";
import { createSnapshotStore, type Entry, splitKey, toKey } from "./snapshot-store.ts";

const anyEntry = (key: string): fc.Arbitrary<Entry> =>
  fc
    .record({
      version: fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.bigInt({ min: 0n, max: 300n })),
      licenses: fc.array(anyLicense, { maxLength: 3 }),
      source: fc.constantFrom("MEMORY" as const, "REDIS" as const, "LICENSING" as const),
      readAtMs: fc.constantFrom(0, 1_767_225_600_123),
      dueAtS: fc.oneof(fc.nat(), fc.constant(2 ** 32 - 1)),
    })
    .map(({ licenses, version, ...rest }) => ({
      ...rest,
      version,
      snapshot: { ...splitKey(key), version, licenses },
    }));

// One object beside the bytes, so that both ways to a value are gone.
replicaStoreConformance("the store of snapshots", () => createSnapshotStore(1), anyEntry);

describe("the store of snapshots", () => {
  const [entry] = fc.sample(anyEntry(toKey("tradsys", "a")), 1) as [Entry];

  test("hands out one object of a customer who is asked about, until the customer changes", () => {
    const store = createSnapshotStore();
    const key = toKey("tradsys", "a");
    store.set(key, entry);
    const { snapshot } = store.get(key) ?? {};
    expect(snapshot).toEqual(entry.snapshot);
    expect(store.get(`tradsys/${"a"}`)?.snapshot).toBe(snapshot);
    store.set(key, { ...entry, version: entry.version + 1n });
    expect(store.get(key)?.snapshot).not.toBe(snapshot);
  });

  test("keys name one customer each, whatever is in a customer's id", () => {
    expect(splitKey(toKey("tradsys", "a/b"))).toEqual({ tenant: "tradsys", customerId: "a/b" });
  });
});

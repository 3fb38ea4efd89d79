import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import type { ReplicaStore } from "../replica-store.ts";

/**
 * Plays random courses against an implementation and the obvious model of it.
 *
 * @param anyValue values whose equality `toEqual` tells.
 */
export function replicaStoreConformance<V>(
  name: string,
  open: () => ReplicaStore<V>,
  anyValue: (key: string) => fc.Arbitrary<V>,
): void {
  const keys = ["tenant/a", "tenant/b", "tenant/c", "tenant/d", "tenant/é日"];
  const anyStep = fc.constantFrom(...keys).chain((key) =>
    fc.oneof(
      fc.record({ key: fc.constant(key), does: fc.constant("set" as const), value: anyValue(key) }),
      fc.record({
        key: fc.constant(key),
        does: fc.constantFrom("get" as const, "get" as const, "peek" as const, "spare" as const, "delete" as const),
      }),
    ),
  );

  describe(`${name} keeps what a replica's store promises`, () => {
    test("whatever is set, used, asked about and deleted in whatever order", () => {
      const property = fc.property(fc.array(anyStep, { maxLength: 40, size: "max" }), (steps) => {
        const store = open();
        const model = new Map<string, { value: V; used: boolean }>();
        for (const step of steps) {
          const known = model.get(step.key);
          if (step.does === "set") {
            store.set(step.key, step.value);
            if (known === undefined) model.set(step.key, { value: step.value, used: false });
            else known.value = step.value;
          } else if (step.does === "spare") {
            expect(store.spare(step.key)).toBe(known?.used ?? false);
            if (known !== undefined) known.used = false;
          } else if (step.does === "delete") {
            store.delete(step.key);
            model.delete(step.key);
          } else {
            expect(store[step.does](step.key)).toEqual(known?.value);
            if (step.does === "get" && known !== undefined) known.used = true;
          }
          expect(store.has(step.key)).toBe(model.has(step.key));
          expect(store.size).toBe(model.size);
        }
        const left = store.keys();
        expect(Array.from({ length: model.size + 1 }, () => left.next().value)).toEqual([...model.keys(), undefined]);
      });
      fc.assert(property, { numRuns: 100 });
    });

    test("keys go on while keys come and go", () => {
      const store = open();
      const value = (key: string): V => fc.sample(anyValue(key), 1)[0] as V;
      for (const key of ["a", "b", "c"]) store.set(key, value(key));
      const walk = store.keys();
      expect(walk.next().value).toBe("a");
      store.delete("a");
      store.delete("b");
      store.set("d", value("d"));
      expect([walk.next().value, walk.next().value, walk.next().done]).toEqual(["c", "d", true]);
    });
  });
}

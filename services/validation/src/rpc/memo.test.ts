import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { createMemo } from "./memo.ts";

test("a memo has the values that were set last, as many as are not too heavy together", () => {
  const step = fc.record({ key: fc.constantFrom("a", "b", "c", "d", "e"), weight: fc.integer({ min: 1, max: 12 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const memo = createMemo<number>(10);
      let model: { readonly key: string; readonly weight: number; readonly value: number }[] = [];
      for (const [value, { key, weight }] of steps.entries()) {
        memo.set(key, value, weight);
        model = [...model.filter((one) => one.key !== key), { key, weight, value }];
        while (model.reduce((sum, one) => sum + one.weight, 0) > 10) model.shift();
        for (const name of ["a", "b", "c", "d", "e"]) {
          expect(memo.get(name)).toBe(model.find((one) => one.key === name)?.value);
        }
      }
    }),
  );
});

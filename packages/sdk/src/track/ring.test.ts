import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { createRing } from "./ring.ts";

test("a ring does what a list does, up to its room", () => {
  const steps = fc.array(fc.oneof(fc.record({ push: fc.nat() }), fc.constant("shift" as const)), { maxLength: 100 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 9 }), steps, (capacity, sequence) => {
      const ring = createRing<number>(capacity);
      const room = 2 ** Math.ceil(Math.log2(capacity));
      const model: number[] = [];
      for (const step of sequence) {
        if (step === "shift") expect(ring.shift()).toBe(model.shift());
        else expect(ring.push(step.push)).toBe(model.length < room && model.push(step.push) > 0);
        expect(ring.size).toBe(model.length);
      }
    }),
  );
});

import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { LatestMap } from "./latest-map.ts";

const key = fc.constantFrom("a", "b", "c", "d");
const step = fc.oneof(
  fc.record({ do: fc.constant("set" as const), key, value: fc.nat() }),
  fc.record({ do: fc.constant("delete" as const), key }),
  fc.record({ do: fc.constant("drop" as const) }),
);

test("whatever is set, set again and deleted, the oldest goes first", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const map = new LatestMap<number>();
      let model: { key: string; value: number }[] = [];
      for (const one of steps) {
        if (one.do === "drop") {
          expect(map.dropOldest()).toEqual(model.shift());
          continue;
        }
        model = model.filter((entry) => entry.key !== one.key);
        if (one.do === "set") {
          map.set(one.key, one.value);
          model.push({ key: one.key, value: one.value });
        } else {
          map.delete(one.key);
        }
        expect(map.size).toBe(model.length);
        for (const entry of model) expect(map.get(entry.key)).toBe(entry.value);
        expect(map.has(one.key)).toBe(one.do === "set");
      }
    }),
  );
});

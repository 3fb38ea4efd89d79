import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { createBackstop } from "./backstop.ts";

function setUp(random = () => 0.5) {
  const clock = { ms: 10_000 };
  const backstop = createBackstop({ confirmAfterMs: 300_000, steadyMs: () => clock.ms, random });
  const under: PromiseWithResolvers<void>[] = [];
  const asked: string[] = [];
  const confirm = (key: string): void =>
    backstop.confirm(key, () => {
      asked.push(key);
      const answer = Promise.withResolvers<void>();
      under.push(answer);
      return answer.promise;
    });
  const settle = async (how: "resolve" | "reject"): Promise<void> => {
    for (const answer of under.splice(0)) answer[how]();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { backstop, clock, confirm, asked, settle };
}

describe("the backstop", () => {
  test("spreads over two fifths of the time what was confirmed together", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (share) => {
        const { backstop, clock } = setUp(() => share);
        const dueAtS = backstop.dueAtS();
        expect(dueAtS).toBeGreaterThanOrEqual(250);
        expect(dueAtS).toBeLessThanOrEqual(371);
        clock.ms = dueAtS * 1_000 - 1;
        expect(backstop.isDue(dueAtS)).toBe(false);
        clock.ms += 1;
        expect(backstop.isDue(dueAtS)).toBe(true);
      }),
    );
  });

  test("asks about a key once at a time, about eight at once, and fifty in a second", async () => {
    const { backstop, clock, confirm, asked, settle } = setUp();
    for (let index = 0; index < 20; index++) for (const key of ["a", `key-${index}`]) confirm(key);
    expect(asked).toEqual(["a", ...Array.from({ length: 7 }, (_, index) => `key-${index}`)]);
    expect([backstop.isAsking("a"), backstop.isAsking("key-19")]).toEqual([true, false]);
    for (let round = 0; round < 20; round++) {
      await settle("resolve");
      for (let index = 0; index < 20; index++) confirm(`key-${index}`);
    }
    expect(asked).toHaveLength(50);
    clock.ms += 1_000;
    await settle("resolve");
    confirm("a");
    expect(asked).toHaveLength(51);
  });

  test("leaves licensing alone for a second after it did not answer", async () => {
    const { clock, confirm, asked, settle } = setUp();
    confirm("a");
    await settle("reject");
    clock.ms += 999;
    confirm("a");
    expect(asked).toEqual(["a"]);
    clock.ms += 1;
    confirm("a");
    expect(asked).toEqual(["a", "a"]);
  });
});

import { expect, test } from "@jest/globals";
import { inParallel } from "./parallel.ts";

test("asks for each item once, at most eight at a time, and keeps their order", async () => {
  const items = Array.from({ length: 20 }, (_, index) => index);
  const asked: number[] = [];
  let underWay = 0;
  let most = 0;
  const results = await inParallel(items, async (item) => {
    asked.push(item);
    underWay += 1;
    most = Math.max(most, underWay);
    await new Promise(setImmediate);
    underWay -= 1;
    return `answer ${item}`;
  });
  expect(asked).toEqual(items);
  expect(most).toBe(8);
  expect(results).toEqual(items.map((item) => `answer ${item}`));
});

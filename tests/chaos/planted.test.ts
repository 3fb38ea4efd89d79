import { readFileSync } from "node:fs";
import { describe, expect, test } from "@jest/globals";
import { applyPatches, patchesByUrl, plantedBugs } from "./planted.ts";

describe("planted bugs", () => {
  test.each(Object.keys(plantedBugs))("%s still finds what it replaces", (name) => {
    for (const [url, patches] of patchesByUrl(name)) {
      const source = readFileSync(new URL(url), "utf8");
      expect(applyPatches(source, patches)).not.toBe(source);
    }
  });

  test("a snippet that is gone, or is there twice, is refused", () => {
    const patch = { file: "x.ts", from: "a", to: "b" };
    expect(applyPatches("xay", [patch])).toBe("xby");
    expect(() => applyPatches("xy", [patch])).toThrow("0 times");
    expect(() => applyPatches("aa", [patch])).toThrow("2 times");
  });
});

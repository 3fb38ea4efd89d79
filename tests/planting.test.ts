import { readFileSync } from "node:fs";
import { expect, test } from "@jest/globals";
import { plantedBugs } from "./chaos/planted.ts";
import { planted } from "./fuzz/planted.ts";
import { applyPatches, type Patch, patchesByUrl } from "./planting.ts";
import { planted as plantedInSeats } from "./seats/planted.ts";

const all: (readonly [string, readonly Patch[]])[] = [
  ...Object.entries(plantedBugs).map(([name, { patches }]) => [`chaos: ${name}`, patches] as const),
  ...Object.entries(planted).map(([name, patches]) => [`fuzz: ${name}`, patches] as const),
  ...Object.entries(plantedInSeats).map(([name, patches]) => [`seats: ${name}`, patches] as const),
];

test.each(all)("%s still finds what it replaces", (_, bug) => {
  for (const [url, patches] of patchesByUrl(bug)) {
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

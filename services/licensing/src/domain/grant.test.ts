import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { anonymous, checkConfiguration, type Grant, grantsAt, listsFeature } from "./grant.ts";

const now = new Date("2026-11-22T10:00:00Z");
const grant = (feature: string, expiresAt?: Date): Grant => ({
  feature,
  activatedAt: now,
  activatedBy: "key-1",
  onBehalfOf: "ada@example.com",
  configuration: "",
  ...(expiresAt && { expiresAt }),
});

const nested = (depth: number) => `${'{"a":'.repeat(depth - 1)}{}${"}".repeat(depth - 1)}`;

describe("a configuration", () => {
  test.each([
    [""],
    ["{}"],
    [' {"max_orders": 5, "venues": ["EGX", null, true, 1.5e3]}\n'],
    ['{"text": "[[[[[[[[[[{{{{{{{{{{ \\" [[[[[["}'],
    [nested(8)],
    ['{"big": 12345678901234567890}'],
  ])("%j passes", (text) => expect(() => checkConfiguration(text)).not.toThrow());

  test.each([
    ["a list", "[]"],
    ["a text", '"on"'],
    ["null", "null"],
    ["a number", "5"],
    ["no JSON", "{max_orders: 5}"],
    ["two objects", "{}{}"],
    ["a cut object", '{"a": 1'],
    ["a comment", "{} // yes"],
    ["a blank", " "],
    ["nine levels", nested(9)],
    ["nine levels of lists", `{"a": ${"[".repeat(8)}${"]".repeat(8)}}`],
    ["nine levels in a key that is there twice", `{"a": ${nested(8)}, "a": 1}`],
    ["as many levels as fit", nested(680)],
  ])("that is %s is refused by the name of its field", (_what, text) => {
    expect(() => checkConfiguration(text)).toThrow(
      expect.objectContaining({
        code: "INVALID_ARGUMENT",
        violations: [expect.objectContaining({ field: "configuration" })],
      }),
    );
  });

  test("passes as any JSON object that nests no deeper than 8 levels", () => {
    const depth = (value: unknown): number =>
      typeof value === "object" && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depth)) : 0;
    fc.assert(
      fc.property(fc.json({ maxDepth: 12 }), (text) => {
        const value: unknown = JSON.parse(text);
        const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
        const passes = isObject && depth(value) <= 8;
        if (passes) checkConfiguration(text);
        else expect(() => checkConfiguration(text)).toThrow();
      }),
    );
  });
});

test("the clock ends a grant at its time, which is excluded", () => {
  const at = (ms: number) => new Date(now.getTime() + ms);
  const grants = [grant("a"), grant("b", at(1)), grant("c", now), grant("d", at(-1))];
  expect(grantsAt(grants, now).map(({ feature }) => feature)).toEqual(["a", "b"]);
});

test("`*` lists every feature", () => {
  expect([listsFeature(["*"], "a"), listsFeature(["a"], "a"), listsFeature(["b"], "a")]).toEqual([true, true, false]);
});

test("without persons, all else of a grant stays", () => {
  expect(anonymous([grant("a", now)])).toEqual([{ ...grant("a", now), activatedBy: "", onBehalfOf: "" }]);
});

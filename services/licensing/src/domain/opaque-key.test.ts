import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { newOpaqueKey, OPAQUE_KEY_BYTES, readOpaqueKey } from "./opaque-key.ts";

const prefixes = fc.stringMatching(/^[A-Z]{2,8}$/);
const randoms = fc.uint8Array({ minLength: OPAQUE_KEY_BYTES, maxLength: OPAQUE_KEY_BYTES });
const keys = fc.tuple(prefixes, randoms).map(([prefix, random]) => newOpaqueKey(prefix, random));
const position = (key: string) => fc.nat({ max: key.length - 1 });

const example = newOpaqueKey(
  "RM",
  Uint8Array.from({ length: 10 }, (_, index) => 17 * index + 3),
);

test("has the prefix, four groups of four and the check character, and loses no random bit", () => {
  fc.assert(
    fc.property(prefixes, randoms, (prefix, random) => {
      const key = newOpaqueKey(prefix, random);
      expect(key).toMatch(/^[A-Z]{2,8}(-[0-9A-HJKMNP-TV-Z]{4}){4}-[0-9A-HJKMNP-TV-Z]$/);
      expect(key.startsWith(`${prefix}-`)).toBe(true);
      expect(readOpaqueKey(key)).toEqual({ key });
    }),
  );
  const singleBits = Array.from({ length: 80 }, (_, bit) => {
    const random = new Uint8Array(OPAQUE_KEY_BYTES);
    random[bit >> 3] = 1 << (bit & 7);
    return newOpaqueKey("RM", random);
  });
  expect(new Set(singleBits).size).toBe(80);
});

test("every single wrong character is noticed", () => {
  const alphabet = Array.from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");
  const same = (one: string, other: string) =>
    [/^[0O]$/, /^[1IL]$/].some((group) => group.test(one) && group.test(other));
  let changes = 0;
  for (const [index, right] of Array.from(example).entries()) {
    if (right === "-") continue;
    for (const wrong of alphabet) {
      if (wrong === right || (index > 2 && same(wrong, right))) continue;
      changes++;
      const typed = example.slice(0, index) + wrong + example.slice(index + 1);
      expect([typed, readOpaqueKey(typed)]).toEqual([typed, { problem: expect.stringMatching(/mistyped|malformed/) }]);
    }
  }
  expect(changes).toBeGreaterThan(600);
  const withWrong = fc
    .tuple(keys, fc.constantFrom(...alphabet))
    .chain(([key, wrong]) => position(key).map((index) => ({ key, wrong, index, right: key[index] ?? "" })));
  fc.assert(
    fc.property(withWrong, ({ key, wrong, index, right }) => {
      fc.pre(right !== "-" && wrong !== right && !(index > key.indexOf("-") && same(wrong, right)));
      expect(readOpaqueKey(key.slice(0, index) + wrong + key.slice(index + 1))).toHaveProperty("problem");
    }),
    { numRuns: 2_000 },
  );
});

test("any two characters that changed places are noticed, not only neighbours", () => {
  const swapped = keys.chain((key) => fc.tuple(fc.constant(key), position(key), position(key)));
  fc.assert(
    fc.property(swapped, ([key, one, other]) => {
      const characters = Array.from(key);
      const behindPrefix = key.indexOf("-");
      fc.pre(one < behindPrefix === other < behindPrefix && characters[one] !== characters[other]);
      fc.pre(characters[one] !== "-" && characters[other] !== "-");
      [characters[one], characters[other]] = [characters[other] ?? "", characters[one] ?? ""];
      expect(readOpaqueKey(characters.join(""))).toEqual({ problem: "mistyped" });
    }),
    { numRuns: 2_000 },
  );
});

describe("reading", () => {
  const body = example.slice(3);
  test.each([
    ["lower case", example.toLowerCase()],
    ["blanks around it", `  ${example}\n`],
    ["no dashes behind the prefix", `RM-${body.replaceAll("-", "")}`],
    ["blanks for dashes", `RM-${body.replaceAll("-", " ")}`],
    ["O for 0", `RM-${body.replaceAll("0", "O")}`],
    ["I for 1", `RM-${body.replaceAll("1", "i")}`],
    ["L for 1", `RM-${body.replaceAll("1", "l")}`],
  ])("overlooks %s", (_what, text) => {
    expect(readOpaqueKey(text)).toEqual({ key: example });
  });

  test("the example has a 0 and a 1 for the rules above to be about", () => {
    expect(body).toMatch(/0/);
    expect(body).toMatch(/1/);
  });

  test.each([
    ["nothing", ""],
    ["a character missing", example.slice(0, -1)],
    ["one too many", `${example}0`],
    ["the letter U", `${example.slice(0, -1)}U`],
    ["no prefix", body],
    ["a digit in the prefix", `R1-${body}`],
    ["a prefix that is too long", `ABCDEFGHI-${body}`],
    ["a character of no key", example.replace("-", "_")],
  ])("finds malformed: %s", (_what, text) => {
    expect(readOpaqueKey(text)).toEqual({ problem: "malformed" });
  });
});

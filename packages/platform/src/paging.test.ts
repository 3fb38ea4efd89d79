import { describe, expect, test } from "@jest/globals";
import { decodePageToken, pageTokenDate, pageTokenUuid, toPage } from "./paging.ts";

const foreign = expect.objectContaining({
  code: "INVALID_ARGUMENT",
  reason: "INVALID_FIELD",
  message: expect.stringContaining("is not a token of this list"),
});

const forge = (text: string): string => Buffer.from(text).toString("base64url");

describe("a page token", () => {
  test("leads behind the last item of its page, and the last page has none", () => {
    const rows = [
      ["a", "1"],
      ["b", "é😀"],
      ["c", "3"],
    ];
    const page = toPage(rows, 2, (row) => row);
    expect(page.items).toEqual(rows.slice(0, 2));
    expect(decodePageToken(page.nextPageToken, 2)).toEqual(["b", "é😀"]);
    expect(toPage(rows, 3, (row) => row).nextPageToken).toBe("");
    expect(decodePageToken("", 2)).toBeUndefined();
  });

  test.each([
    ["no JSON", "?"],
    ["JSON of something else", forge('{"0":"a"}')],
    ["too few parts", forge('["a"]')],
    ["too many parts", forge('["a","b","c"]')],
    ["a part that is no text", forge('["a",1]')],
    ["U+0000", forge('["a","\\u0000"]')],
    ["half a pair of surrogates", forge('["a","\\ud800"]')],
  ])("with %s is refused", (_what, token) => {
    expect(() => decodePageToken(token, 2)).toThrow(foreign);
  });
});

describe("a time in a page token", () => {
  test("is a date", () => {
    expect(pageTokenDate("1970-01-01T00:00:00.000Z")).toEqual(new Date(0));
    const last = "9999-12-31T23:59:59.999Z";
    expect(pageTokenDate(last)).toEqual(new Date(last));
  });

  test.each(["yesterday", "1969-12-31T23:59:59.999Z", "+010000-01-01T00:00:00.000Z", "-200000-01-01T00:00:00.000Z"])(
    "is not %s",
    (part) => {
      expect(() => pageTokenDate(part)).toThrow(foreign);
    },
  );
});

test("a UUID in a page token is one", () => {
  const id = "019a2f0e-5b7c-7d3e-8f10-0123456789ab";
  expect(pageTokenUuid(id)).toBe(id);
  for (const part of ["", "x", id.slice(1), `${id}0`]) expect(() => pageTokenUuid(part)).toThrow(foreign);
});

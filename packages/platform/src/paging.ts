import { validate as isUuid } from "uuid";
import { invalidArgument, type ServiceError } from "./errors.ts";

/** The page size of a list call that asks for none. */
export const DEFAULT_PAGE_SIZE = 50;

/**
 * An opaque page token (AIP-158) that holds the sort key of the last item of a page, so that the next page starts
 * right behind it whatever was inserted meanwhile.
 *
 * @param key - the sort key's parts as text, in order
 */
function encodePageToken(key: readonly string[]): string {
  return Buffer.from(JSON.stringify(key)).toString("base64url");
}

/**
 * The sort key inside a page token, or undefined for the first page.
 *
 * @param token - `page_token` of the request; empty for the first page
 * @param parts - how many parts the method's sort key has
 * @throws ServiceError INVALID_ARGUMENT when the token is not one that a call of this method returned
 */
export function decodePageToken(token: string, parts: number): readonly string[] | undefined {
  if (token === "") return undefined;
  try {
    const key: unknown = JSON.parse(Buffer.from(token, "base64url").toString("utf8"));
    if (Array.isArray(key) && key.length === parts && key.every(isStorable)) return key;
  } catch {
    // Not JSON: refused below like any other foreign token.
  }
  throw foreignToken();
}

/** Whether a part can be compared with what the database holds: it takes neither U+0000 nor half a pair of surrogates. */
function isStorable(part: unknown): part is string {
  return typeof part === "string" && part.isWellFormed() && !part.includes("\0");
}

/** A page of a list and the token of the next one. */
export interface Page<T> {
  items: T[];
  /** Empty when this was the last page. */
  nextPageToken: string;
}

/**
 * Cuts a page out of rows that were selected with `limit(pageSize + 1)`.
 *
 * @param rows - up to `pageSize + 1` rows in sort order
 * @param pageSize - how many of them belong to the page
 * @param keyOf - the sort key of a row
 */
export function toPage<T>(rows: readonly T[], pageSize: number, keyOf: (row: T) => readonly string[]): Page<T> {
  const items = rows.slice(0, pageSize);
  const last = items.at(-1);
  return { items, nextPageToken: rows.length > pageSize && last ? encodePageToken(keyOf(last)) : "" };
}

/**
 * A time that a page token holds in its ISO form; of the years 1970 to 9999, as nothing in a list is older.
 *
 * @throws ServiceError INVALID_ARGUMENT as {@link decodePageToken}
 */
export function pageTokenDate(part: string): Date {
  const date = new Date(part);
  const year = date.getUTCFullYear();
  // Not a date: its year is NaN.
  if (!(year >= 1970 && year <= 9999)) throw foreignToken();
  return date;
}

/**
 * A UUID that a page token holds.
 *
 * @throws ServiceError INVALID_ARGUMENT as {@link decodePageToken}
 */
export function pageTokenUuid(part: string): string {
  if (!isUuid(part)) throw foreignToken();
  return part;
}

/**
 * A number of a database's sequence that a page token holds.
 *
 * @throws ServiceError INVALID_ARGUMENT as {@link decodePageToken}
 */
export function pageTokenBigint(part: string): bigint {
  if (!/^\d{1,18}$/.test(part)) throw foreignToken();
  return BigInt(part);
}

function foreignToken(): ServiceError {
  return invalidArgument("page_token", "is not a token of this list; use next_page_token of the page before");
}

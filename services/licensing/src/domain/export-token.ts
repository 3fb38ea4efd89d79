import { invalidArgument } from "@licet/platform/errors";

/**
 * Where an export goes on: the id of the last row that was sent, with what the export is, so that a token is not taken for
 * one of another export.
 *
 * @param what - the tenant and everything that decides which rows there are and how they are written
 */
export function encodeExportToken(what: string, lastId: string): string {
  return Buffer.from(JSON.stringify([what, lastId])).toString("base64url");
}

/**
 * The id inside a token.
 *
 * @throws ServiceError INVALID_ARGUMENT when the token is not one of this export
 */
export function decodeExportToken(token: string, what: string): string {
  try {
    const parts: unknown = JSON.parse(Buffer.from(token, "base64url").toString("utf8"));
    if (Array.isArray(parts) && parts.length === 2) {
      const [of, lastId] = parts as unknown[];
      if (of === what && typeof lastId === "string" && !lastId.includes("\0") && lastId.isWellFormed()) return lastId;
    }
  } catch {
    // Not JSON: refused below like any other foreign token.
  }
  throw invalidArgument("resume_token", "is not a token of this export; use that of the last message that was kept");
}

import { failure } from "../errors.ts";

/**
 * Refuses a change by somebody who knows an older state.
 *
 * @param what - whose etag it is, as a sentence begins: `Product trading`
 * @param asked - the etag that the caller sent; empty: any
 * @throws ServiceError ABORTED `ETAG_MISMATCH` that tells the current one
 */
export function checkEtag(what: string, asked: string, revision: bigint): void {
  const etag = revision.toString();
  if (asked === "" || asked === etag) return;
  const message = `${what} has changed since etag ${JSON.stringify(asked)}; it is now ${etag}.`;
  throw failure("ETAG_MISMATCH", message, { etag });
}

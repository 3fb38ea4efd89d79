import { hash } from "node:crypto";
import type { RequestListener } from "node:http";
import type { Logger } from "./logging.ts";

/** How long caches may keep a document, in seconds. */
const MAX_AGE_S = 300;
/** How long this process keeps it, in milliseconds: however many ask, the source is asked once in this time. */
const RELOAD_AFTER_MS = 5_000;

interface Loaded {
  readonly body: string;
  readonly etag: string;
}

/**
 * Answers GET with a JSON document that anyone may read, such as public keys. Caches may keep it for 5 minutes; the
 * `ETag` is a hash of the content, so asking again for what has not changed is answered 304. It is loaded at most once in
 * 5 s; while it can't be loaded the answer is 503.
 *
 * @param now - a clock in milliseconds that never goes back
 */
export function answerJson(
  load: () => Promise<unknown>,
  logger: Logger,
  now: () => number = () => performance.now(),
): RequestListener {
  let loading: { readonly at: number; readonly document: Promise<Loaded> } | undefined;
  const current = (): Promise<Loaded> => {
    if (loading === undefined || now() - loading.at >= RELOAD_AFTER_MS) {
      const next = { at: now(), document: load().then(toLoaded) };
      loading = next;
      // What failed is not kept: the next request tries again.
      next.document.catch(() => {
        if (loading === next) loading = undefined;
      });
    }
    return loading.document;
  };
  return (request, response) => {
    current().then(
      ({ body, etag }) => {
        const headers = { etag, "cache-control": `public, max-age=${MAX_AGE_S}` };
        const known = request.headers["if-none-match"]?.split(",").map((tag) => tag.trim().replace(/^W\//, "")) ?? [];
        if (known.includes(etag) || known.includes("*")) response.writeHead(304, headers).end();
        else response.writeHead(200, { ...headers, "content-type": "application/json" }).end(body);
      },
      (error: unknown) => {
        logger.warn({ err: error, url: request.url }, "a document could not be loaded");
        response.writeHead(503, { "content-type": "application/json", "cache-control": "no-store" });
        response.end(JSON.stringify({ error: "not available now; try again" }));
      },
    );
  };
}

function toLoaded(document: unknown): Loaded {
  const body = JSON.stringify(document);
  return { body, etag: `"${hash("sha256", body, "base64url")}"` };
}

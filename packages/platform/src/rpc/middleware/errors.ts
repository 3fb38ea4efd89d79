import { codeOf, isPassingError } from "../../database/connection.ts";
import { platformError, ServiceError } from "../../errors.ts";
import type { Logger } from "../../logging.ts";
import type { Middleware, ServerCall } from "../call.ts";

/** Postgres: serialization failure, deadlock, lock not available. The transaction was in another's way; again, it may succeed. */
const conflictStates: ReadonlySet<string | undefined> = new Set(["40001", "40P01", "55P03"]);
/** How deep a chain of causes is followed: it may be a circle. */
const MAX_CAUSES = 10;
/** During an outage every call fails: so often, in milliseconds, one of them is logged. */
const OUTAGE_LOG_MS = 1_000;

/**
 * Turns whatever a call threw into a ServiceError. What the driver of the
 * database says becomes CONFLICT_RETRY or DEPENDENCY_UNAVAILABLE; anything else
 * is a fault of ours, logged with its chain of causes and answered "internal
 * error", so no internals reach a caller.
 */
export function errors(logger: Logger): Middleware {
  const outages = outageLog(logger);
  return async (call, next) => {
    try {
      await next();
    } catch (thrown) {
      const error = toServiceError(thrown);
      if (error.reason === "DEPENDENCY_UNAVAILABLE") outages(call, error);
      else if (isOurs(error)) log(logger, call, error);
      throw error;
    }
  };
}

function toServiceError(thrown: unknown): ServiceError {
  if (thrown instanceof ServiceError) return thrown;
  const chain = causes(thrown);
  if (chain.some((error) => conflictStates.has(codeOf(error)))) {
    return platformError("CONFLICT_RETRY", "another transaction was in the way; try again", { cause: thrown });
  }
  if (chain.some(isPassingError)) {
    const message = "something that this call needs can't be reached or can't work now; try again";
    return platformError("DEPENDENCY_UNAVAILABLE", message, { cause: thrown });
  }
  return platformError("INTERNAL", "internal error", { cause: thrown });
}

/** What was thrown and its causes, outermost first. */
function causes(thrown: unknown): unknown[] {
  const chain: unknown[] = [];
  for (let next = thrown; next !== undefined && chain.length < MAX_CAUSES; ) {
    chain.push(next);
    next = typeof next === "object" && next !== null && "cause" in next ? next.cause : undefined;
  }
  return chain;
}

/** A fault of ours: somebody has to look. What callers do wrong is everyday life. */
function isOurs({ code }: ServiceError): boolean {
  return code === "INTERNAL" || code === "UNKNOWN" || code === "DATA_LOSS";
}

function log(logger: Logger, call: ServerCall, error: ServiceError, further?: { unlogged: number }): void {
  const { code, reason } = error;
  const facts = { method: call.name, code, reason, peer: call.peer, ...further, err: error.cause ?? error };
  logger.error(facts, "call failed");
}

/** Logs calls that failed because something we need is gone: one a second and how many more, as they all say the same. */
function outageLog(logger: Logger): (call: ServerCall, error: ServiceError) => void {
  let quietUntil = 0;
  let unlogged = 0;
  return (call, error) => {
    const now = performance.now();
    if (now < quietUntil) {
      unlogged += 1;
      return;
    }
    log(logger, call, error, { unlogged });
    quietUntil = now + OUTAGE_LOG_MS;
    unlogged = 0;
  };
}

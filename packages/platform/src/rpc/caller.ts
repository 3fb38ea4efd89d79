import type { Call } from "./call.ts";

/** The most characters that are kept of what a caller calls its program. */
const MAX_USER_AGENT = 256;

/** Where a call came from, for an audit trail. */
export interface Caller {
  /** As {@link Call.address} has it. */
  readonly ipAddress: string;
  /** The header `user-agent`, cut to 256 characters; empty when there is none. Nobody vouches for it. */
  readonly userAgent: string;
}

/** Tells where a call came from. */
export function callerOf(call: Pick<Call, "address" | "headers">): Caller {
  const userAgent = (call.headers.get("user-agent") ?? "").toWellFormed().replaceAll("\0", "");
  return { ipAddress: call.address, userAgent: [...userAgent].slice(0, MAX_USER_AGENT).join("") };
}

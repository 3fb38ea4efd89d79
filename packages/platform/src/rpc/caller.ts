import { isIP } from "node:net";
import type { Call } from "./call.ts";

/** The most characters that are kept of what a caller calls its program. */
const MAX_USER_AGENT = 256;

/** Where a call came from, for an audit trail. */
export interface Caller {
  /**
   * The address at the other end of the connection; empty for a call inside the process. Behind a proxy it is the
   * proxy's: headers such as `x-forwarded-for` say whatever their sender wants and are not read.
   */
  readonly ipAddress: string;
  /** The header `user-agent`, cut to 256 characters; empty when there is none. Nobody vouches for it. */
  readonly userAgent: string;
}

/** Tells where a call came from. */
export function callerOf(call: Pick<Call, "peer" | "headers">): Caller {
  const userAgent = (call.headers.get("user-agent") ?? "").toWellFormed().replaceAll("\0", "");
  return { ipAddress: addressOf(call.peer), userAgent: [...userAgent].slice(0, MAX_USER_AGENT).join("") };
}

/** The address in `10.0.0.1:443`, `[::1]:443` or, as grpc-js writes it, `::1:443`; one in IPv6's clothes without them. */
function addressOf(peer: string): string {
  const host = peer
    .replace(/:\d+$/, "")
    .replace(/^\[(.*)\]$/, "$1")
    .replace(/^::ffff:(?=\d+\.)/i, "");
  return isIP(host) === 0 ? "" : host;
}

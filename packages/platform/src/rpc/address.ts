import { BlockList, isIP, isIPv6 } from "node:net";

/** The most entries of `x-forwarded-for` that are looked at: more proxies stand in no row. */
const MAX_HOPS = 20;

/** The proxies whose word about where a call came from is taken. */
export interface TrustedProxies {
  includes(address: string): boolean;
}

/**
 * Reads addresses and networks separated by commas, such as `10.0.0.0/8, 192.0.2.7, fd00::/8`.
 *
 * @returns undefined when one of them is none.
 */
export function readTrustedProxies(text: string): TrustedProxies | undefined {
  const list = new BlockList();
  for (const entry of text.split(",")) {
    const [address = "", prefix, ...rest] = entry.trim().split("/");
    const version = isIP(address);
    const bits = prefix === undefined ? maxBits(version) : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
    if (version === 0 || rest.length > 0 || !(bits <= maxBits(version))) return undefined;
    list.addSubnet(address, bits, familyOf(address));
  }
  return { includes: (address) => isIP(address) !== 0 && list.check(address, familyOf(address)) };
}

/**
 * Where a call came from: the address at the other end of the connection. If that is a trusted proxy, the last entry of
 * `x-forwarded-for` that is not one: each proxy appends whom it was called by, and what stands before that was written by
 * the caller, who may write anything.
 *
 * @param peer as transports give it: `10.0.0.1:443`, `[::1]:443` or, as grpc-js writes it, `::1:443`.
 * @returns an IP address, one of IPv4 never in IPv6's clothes; empty for a call inside the process.
 */
export function callerAddress(peer: string, headers: Headers, proxies?: TrustedProxies): string {
  let address = plainAddress(peer.replace(/:\d+$/, ""));
  if (proxies === undefined || !proxies.includes(address)) return address;
  const hops = (headers.get("x-forwarded-for") ?? "").split(",").slice(-MAX_HOPS);
  for (const hop of hops.reverse()) {
    const before = plainAddress(withoutPort(hop.trim()));
    // What is no address tells nothing, and neither does what stands before it.
    if (before === "") return address;
    address = before;
    if (!proxies.includes(address)) return address;
  }
  return address;
}

/** What callers are told apart by: an address of IPv4, the first 64 bits of IPv6, of which one caller has all the rest. */
export function networkOf(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = "", tail] = address.split("%")[0]?.split("::") ?? [];
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  // An address of IPv4 at the end stands for two groups.
  const groups = left.length + right.length + (address.includes(".") ? 1 : 0);
  const zeros = tail === undefined ? [] : Array<string>(Math.max(0, 8 - groups)).fill("0");
  return [...left, ...zeros, ...right]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":");
}

function plainAddress(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1").replace(/^::ffff:(?=\d+\.)/i, "");
  return isIP(host) === 0 ? "" : host;
}

/** An entry of `x-forwarded-for` may carry a port: `10.0.0.1:4711`, `[::1]:4711`. */
function withoutPort(entry: string): string {
  return /^(\d+\.[\d.]+|\[.*\]):\d+$/.test(entry) ? entry.replace(/:\d+$/, "") : entry;
}

function maxBits(version: number): number {
  return version === 4 ? 32 : 128;
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return isIPv6(address) ? "ipv6" : "ipv4";
}

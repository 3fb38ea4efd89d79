import { describe, expect, test } from "@jest/globals";
import { callerAddress, networkOf, readTrustedProxies } from "./address.ts";

const none = new Headers();

test.each([
  ["10.1.2.3:4711", "10.1.2.3"],
  ["[2001:db8::1]:4711", "2001:db8::1"],
  ["::1:4711", "::1"],
  ["::ffff:10.1.2.3:4711", "10.1.2.3"],
  ["[::ffff:10.1.2.3]:4711", "10.1.2.3"],
  ["local", ""],
  ["unknown:0", ""],
])("the address in %s is %s", (peer, address) => {
  expect(callerAddress(peer, none)).toBe(address);
});

test("what a caller says about where it comes from is not believed", () => {
  const headers = new Headers({
    "x-forwarded-for": "203.0.113.9",
    forwarded: "for=203.0.113.9",
    "x-real-ip": "203.0.113.9",
  });
  expect(callerAddress("10.1.2.3:4711", headers)).toBe("10.1.2.3");
  expect(callerAddress("10.1.2.3:4711", headers, readTrustedProxies("192.0.2.0/24"))).toBe("10.1.2.3");
});

describe("behind trusted proxies", () => {
  const proxies = readTrustedProxies("10.0.0.0/8, 192.0.2.7,fd00::/8");
  test.each([
    ["who called the proxy", "10.0.0.1:80", "203.0.113.9", "203.0.113.9"],
    ["not what the caller wrote before", "10.0.0.1:80", "198.51.100.1, 203.0.113.9", "203.0.113.9"],
    ["through a row of them", "10.0.0.1:80", "1.1.1.1, 203.0.113.9, 10.9.9.9, 192.0.2.7", "203.0.113.9"],
    ["by IPv6", "[fd00::1]:80", "2001:db8::5", "2001:db8::5"],
    ["with ports", "10.0.0.1:80", "203.0.113.9:5555", "203.0.113.9"],
    ["with ports of IPv6", "10.0.0.1:80", "[2001:db8::5]:5555", "2001:db8::5"],
    ["in IPv6's clothes", "[::ffff:10.0.0.1]:80", "::ffff:203.0.113.9", "203.0.113.9"],
    ["the proxy itself, when it tells nothing", "10.0.0.1:80", "", "10.0.0.1"],
    ["the proxy itself, when it tells nonsense", "10.0.0.1:80", "203.0.113.9, unknown", "10.0.0.1"],
    ["the farthest proxy, when all are", "10.0.0.1:80", "10.0.0.2, 10.0.0.3", "10.0.0.2"],
    ["not more hops than there can be", "10.0.0.1:80", `203.0.113.9${", 10.0.0.2".repeat(20)}`, "10.0.0.2"],
  ])("%s", (_what, peer, forwarded, address) => {
    expect(callerAddress(peer, new Headers({ "x-forwarded-for": forwarded }), proxies)).toBe(address);
  });
});

test.each(["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8/8", "proxy", "10.0.0.1,,10.0.0.2", "::/129", "10.0.0.0/-1"])(
  "%p names no proxies",
  (text) => {
    expect(readTrustedProxies(text)).toBeUndefined();
  },
);

test.each([
  ["203.0.113.9", "203.0.113.9"],
  ["", ""],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
  ["2001:0db8::1", "2001:db8:0:0"],
  ["::1", "0:0:0:0"],
  ["::", "0:0:0:0"],
  ["2001:db8::", "2001:db8:0:0"],
  ["64:ff9b::192.0.2.1", "64:ff9b:0:0"],
  ["fe80::1%eth0", "fe80:0:0:0"],
])("callers of %s are those of %s", (address, network) => {
  expect(networkOf(address)).toBe(network);
});

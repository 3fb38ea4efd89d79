import { expect, test } from "@jest/globals";
import { callerOf } from "./caller.ts";

const called = (peer: string, headers: Record<string, string> = {}) =>
  callerOf({ peer, headers: new Headers(headers) });

test.each([
  ["10.1.2.3:4711", "10.1.2.3"],
  ["[2001:db8::1]:4711", "2001:db8::1"],
  ["::1:4711", "::1"],
  ["::ffff:10.1.2.3:4711", "10.1.2.3"],
  ["[::ffff:10.1.2.3]:4711", "10.1.2.3"],
  ["local", ""],
  ["unknown:0", ""],
])("the address in %s is %s", (peer, ipAddress) => {
  expect(called(peer).ipAddress).toBe(ipAddress);
});

test("what a caller says about where it comes from is not believed", () => {
  const headers = { "x-forwarded-for": "203.0.113.9", forwarded: "for=203.0.113.9", "x-real-ip": "203.0.113.9" };
  expect(called("10.1.2.3:4711", headers)).toEqual({ ipAddress: "10.1.2.3", userAgent: "" });
});

test("the user agent is kept, but not without end", () => {
  expect(called("local", { "user-agent": "curl/8.5.0" }).userAgent).toBe("curl/8.5.0");
  expect(called("local", { "user-agent": "x".repeat(10_000) }).userAgent).toBe("x".repeat(256));
});

import { expect, test } from "@jest/globals";
import { callerOf } from "./caller.ts";

const called = (headers: Record<string, string>) => callerOf({ address: "10.1.2.3", headers: new Headers(headers) });

test("the user agent is kept, but not without end", () => {
  expect(called({ "user-agent": "curl/8.5.0" })).toEqual({ ipAddress: "10.1.2.3", userAgent: "curl/8.5.0" });
  expect(called({ "user-agent": "x".repeat(10_000) }).userAgent).toBe("x".repeat(256));
  expect(called({}).userAgent).toBe("");
});

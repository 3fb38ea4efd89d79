import { expect, test } from "@jest/globals";
import type { Call } from "@licet/platform/rpc/call";
import { outgoing } from "@licet/platform/rpc/outgoing";
import { asCaller } from "./as-caller.ts";

const meshCredential = { authorization: "Bearer the-key-of-the-mesh" };

/** What goes out over a channel that has a credential of its own, for a call that came with these headers. */
function sent(headers: Record<string, string>): Record<string, string> {
  // Of a call, no more is looked at.
  const call = { headers: new Headers(headers), signal: new AbortController().signal } as unknown as Call;
  return Object.fromEntries(outgoing(meshCredential, asCaller(call).headers));
}

test.each([
  ["by authorization", { authorization: "Bearer lct_a.b" }],
  ["by x-api-key", { "x-api-key": "lct_a.b" }],
  ["by both, of which the first counts", { authorization: "bearer lct_a.b", "x-api-key": "lct_other.c" }],
])("a caller's key goes out in place of the channel's: %s", (_how, headers) => {
  expect(sent({ ...headers, "x-other": "stays" })).toEqual({ authorization: "Bearer lct_a.b" });
});

test("a service of the mesh goes on acting for the tenant that it named", () => {
  expect(sent({ authorization: "Bearer mesh", "licet-tenant": "tradsys" })).toEqual({
    authorization: "Bearer mesh",
    "licet-tenant": "tradsys",
  });
});

test("a call without a key does not go out by the channel's", () => {
  expect(() => sent({})).toThrow(/no API key/);
  expect(() => sent({ authorization: "Basic abc" })).toThrow(/Bearer/);
});

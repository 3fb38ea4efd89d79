import { readFileSync } from "node:fs";
import path from "node:path";
import { create, type DescMethod, type DescMethodStreaming, type DescMethodUnary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { type Role, scopesOf } from "@licet/licensing/domain/roles";
import { ServiceError } from "@licet/platform/errors";
import { readPolicy } from "@licet/platform/rpc/call";
import type { Channel } from "@licet/platform/rpc/client";
import { everyMethod } from "./every-service.ts";
import { startLicet, type TestLicet } from "./licet.ts";

// What each role may do is told to callers in two places, and decided in a third. Here they are compared, and then every
// method is called by every role.

const root = path.join(import.meta.dirname, "../..");
const roles: readonly Role[] = ["admin", "brand", "product", "service", "viewer", "operator"];
const scopePattern = /`([a-z]+:[a-z]+)`/g;

function scopesIn(text: string): string[] {
  return [...text.matchAll(scopePattern)].map(([, scope = ""]) => scope);
}

/** The scopes of each role by the comments of the contract; an admin has those of all others in its tenant too. */
function scopesOfContract(): Readonly<Record<string, string[]>> {
  const text = readFileSync(path.join(root, "proto/licet/licensing/v1/tenant.proto"), "utf8");
  const documented: Record<string, string[]> = {};
  for (const [, comment = "", name = ""] of text.matchAll(/((?:^ *\/\/.*\n)+) *API_KEY_ROLE_(\w+) = \d+;/gm)) {
    documented[name.toLowerCase()] = scopesIn(comment.replaceAll(/\n *\/\/ /g, " "));
  }
  return withAllBelow(documented);
}

/** The same by the table of the guide. */
function scopesOfGuide(): Readonly<Record<string, string[]>> {
  const text = readFileSync(path.join(root, "docs/guides/api-keys.md"), "utf8");
  const documented: Record<string, string[]> = {};
  for (const [, name = "", scopes = ""] of text.matchAll(/^\| `([A-Z]+)` \| [^|]* \| ([^|]*) \|$/gm)) {
    documented[name.toLowerCase()] = scopesIn(scopes);
  }
  return withAllBelow(documented);
}

function withAllBelow(documented: Readonly<Record<string, string[]>>): Readonly<Record<string, string[]>> {
  const { brand = [], product = [], service = [], viewer = [], admin = [] } = documented;
  return { ...documented, admin: [...admin, ...brand, ...product, ...service, ...viewer] };
}

describe.each(roles)("the role %s", (role) => {
  test.each([
    ["the contract", scopesOfContract],
    ["the guide", scopesOfGuide],
  ])("is what %s says", (_where, read) => {
    expect([...new Set(read()[role])].sort()).toEqual([...scopesOf[role]].sort());
  });
});

let licet: TestLicet;
beforeAll(async () => {
  licet = await startLicet({ seed: true });
});
afterAll(() => licet.stop());

/** Calls a method with an empty request, which authorisation comes before; the error, or undefined where there is none. */
async function errorOf(channel: Channel, method: DescMethod): Promise<unknown> {
  try {
    if (method.methodKind === "unary") {
      await channel.unary(method as DescMethodUnary, undefined, undefined, undefined, create(method.input));
      return undefined;
    }
    if (method.methodKind === "client_streaming") throw new Error(`${method.name} is of a kind this test can't call`);
    const ending = new AbortController();
    async function* one() {
      yield create(method.input);
    }
    const { message } = await channel.stream(method as DescMethodStreaming, ending.signal, undefined, undefined, one());
    for await (const _ of message) break;
    ending.abort();
    return undefined;
  } catch (error) {
    return error;
  }
}

describe.each(roles)("a key of the role %s", (role) => {
  test.each([...everyMethod])("calls %s if it holds the scope, and only then", async (_name, method) => {
    const channel = role === "operator" ? licet.as("platform", role) : licet.as("tradsys", role);
    const { scope = "" } = readPolicy(method);
    const error = await errorOf(channel, method);
    const refused = error instanceof ServiceError && error.reason === "SCOPE_MISSING";
    if (scope === "public" || scopesOf[role].includes(scope)) expect(refused).toBe(false);
    else expect(error).toMatchObject({ code: "PERMISSION_DENIED", metadata: { required_scope: scope } });
  });
});

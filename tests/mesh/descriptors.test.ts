import { globSync } from "node:fs";
import path from "node:path";
import { type DescMessage, type DescMethod, type DescService, hasOption } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "@jest/globals";
import { deadline_ms, required_scope } from "@licet/contracts/licet/options/v1/options_pb";
import { scopesOf } from "@licet/licensing/domain/roles";
import { readPolicy } from "@licet/platform/rpc/call";

// That every message, field and value has a comment is what `buf lint` checks: generated code carries no comments.

const contracts = path.join(import.meta.dirname, "../../packages/contracts/gen/licet");

/** Every service of the contracts: found, not listed, so that a new one can't be forgotten here. */
const services: readonly DescService[] = (
  await Promise.all(globSync("**/*_pb.js", { cwd: contracts }).map((file) => import(path.join(contracts, file))))
)
  .flatMap((module) => Object.values(module as Readonly<Record<string, { readonly kind?: string }>>))
  .filter((exported): exported is DescService => exported.kind === "service");

const methods = services.flatMap((service) =>
  service.methods.map((method): [string, DescMethod] => [`${service.typeName}/${method.name}`, method]),
);

/** What makes a repetition of a mutation harmless, by the message that carries it: a request_id, the ids of events, or a place in a file. */
function repeatable(input: DescMessage): string[] {
  const named = (name: string) => input.fields.find((field) => field.name === name);
  const event = named("event") ?? named("events");
  const keyed = event?.message?.fields.some((field) => field.name === "id") ? ["event ids"] : [];
  const placed = named("import_id") && named("offset") ? ["place in a file"] : [];
  return [...(named("request_id") ? ["request_id"] : []), ...keyed, ...placed];
}

describe.each(methods)("%s", (_name, method) => {
  test("says its scope, its idempotency level and its deadline", () => {
    expect(hasOption(method, required_scope)).toBe(true);
    expect(hasOption(method, deadline_ms)).toBe(true);
    expect([Level.NO_SIDE_EFFECTS, Level.IDEMPOTENT]).toContain(method.idempotency);
    if (method.methodKind === "unary") expect(readPolicy(method).deadlineMs).toBeLessThanOrEqual(5_000);
  });

  test("a mutation can be repeated", () => {
    if (method.idempotency === Level.NO_SIDE_EFFECTS) expect(repeatable(method.input)).toEqual([]);
    else expect(repeatable(method.input)).toHaveLength(1);
  });

  test("somebody holds its scope", () => {
    const held = new Set(["mesh", "public", ...Object.values(scopesOf).flat()]);
    expect(held).toContain(readPolicy(method).scope);
  });
});

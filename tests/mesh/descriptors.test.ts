import { type DescMessage, hasOption } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "@jest/globals";
import { deadline_ms, required_scope } from "@licet/contracts/licet/options/v1/options_pb";
import { scopesOf } from "@licet/licensing/domain/roles";
import { readPolicy } from "@licet/platform/rpc/call";
import { everyMethod } from "./every-service.ts";

// That every message, field and value has a comment is what `buf lint` checks: generated code carries no comments.

/**
 * What makes a repetition of a mutation harmless, by the message that carries it: a request_id, the ids of events, a place in
 * a file, or that of several times the latest counts.
 */
function repeatable(input: DescMessage): string[] {
  const named = (name: string) => input.fields.find((field) => field.name === name);
  const event = named("event") ?? named("events");
  const keyed = event?.message?.fields.some((field) => field.name === "id") ? ["event ids"] : [];
  const latest = named("uses") ? ["the latest use"] : [];
  const placed = named("import_id") && named("offset") ? ["place in a file"] : [];
  return [...(named("request_id") ? ["request_id"] : []), ...keyed, ...latest, ...placed];
}

describe.each([...everyMethod])("%s", (_name, method) => {
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

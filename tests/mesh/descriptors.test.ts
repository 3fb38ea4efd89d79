import { create, type DescMessage, getOption, hasOption, type Message, toBinary, toJson } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import { field as fieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { describe, expect, test } from "@jest/globals";
import {
  TrackUsageBatchRequestSchema,
  TrackUsageRequestSchema,
} from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { deadline_ms, required_scope } from "@licet/contracts/licet/options/v1/options_pb";
import { ValidateFeatureRequestSchema } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { scopesOf } from "@licet/licensing/domain/roles";
import type { ServiceError } from "@licet/platform/errors";
import { readPolicy } from "@licet/platform/rpc/call";
import { decodeBinary, decodeJson } from "@licet/platform/rpc/codec";
import { createMessageRules } from "@licet/platform/rpc/message-rules";
import { everyMethod } from "./every-service.ts";

// That every message, field and value has a comment is what `buf lint` checks: generated code carries no comments.

/**
 * What makes a repetition of a mutation harmless, by the message that carries it: a request_id, the ids of events, a place in
 * a file, or that of several times the latest counts.
 */
function repeatable(input: DescMessage): string[] {
  const named = (name: string) => input.fields.find((field) => field.name === name);
  const event = named("event") ?? named("events");
  const keyed = event?.message?.fields.some((field) => field.name === "id") || named("event_id") ? ["event ids"] : [];
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

describe("too many of anything", () => {
  const violationsOf = (act: () => unknown) => {
    try {
      act();
    } catch (error) {
      return (error as ServiceError).violations.map(({ field, reason }) => [field, reason]);
    }
    return [];
  };
  const check = (schema: DescMessage, message: Message) =>
    violationsOf(() => createMessageRules().check(schema, message));
  const event = { id: "e", customerId: "c", metric: "m", quantity: "1" };
  const crowd = (size: number) => Object.fromEntries(Array.from({ length: size }, (_, index) => [`k${index}`, ""]));

  // Two bytes of a message are an item: to judge each of half a million takes half a minute.
  test("is refused before any of it is judged, and as the contract's rules would", () => {
    const nothing = Array.from({ length: 1_001 }, () => ({}));
    const batch = create(TrackUsageBatchRequestSchema, { events: nothing });
    expect(check(TrackUsageBatchRequestSchema, batch)).toEqual([["events", "repeated.max_items"]]);
    const inside = create(TrackUsageBatchRequestSchema, {
      events: [event, { ...event, dimensions: crowd(21), id: "" }],
    });
    expect(check(TrackUsageBatchRequestSchema, inside)).toEqual([["events[1].dimensions", "map.max_pairs"]]);
    const most = create(TrackUsageBatchRequestSchema, {
      events: Array.from({ length: 1_000 }, () => ({ ...event, dimensions: crowd(20) })),
    });
    expect(check(TrackUsageBatchRequestSchema, most)).toEqual([]);
    const context = create(ValidateFeatureRequestSchema, { context: crowd(65) });
    expect(check(ValidateFeatureRequestSchema, context)).toEqual([["context", "map.max_pairs"]]);
  });

  // What comes behind it can't be decoded: who refuses the number has not tried to.
  test.each([
    ["a list", TrackUsageBatchRequestSchema, { events: Array.from({ length: 1_001 }, () => ({})) }, "events"],
    ["a map", ValidateFeatureRequestSchema, { context: crowd(65) }, "context"],
    [
      "a map in a list",
      TrackUsageBatchRequestSchema,
      { events: [event, { dimensions: crowd(21) }] },
      "events[1].dimensions",
    ],
    ["a map in a message", TrackUsageRequestSchema, { event: { dimensions: crowd(21) } }, "event.dimensions"],
  ])(
    "is refused before any of it is decoded: %s",
    (_what, schema: DescMessage, init: Record<string, unknown>, field) => {
      const reason = field === "events" ? "repeated.max_items" : "map.max_pairs";
      const message = create(schema, init);
      expect(check(schema, message)).toEqual([[field, reason]]);
      const bytes = Buffer.concat([toBinary(schema, message), Buffer.from([0xff])]);
      expect(violationsOf(() => decodeBinary(schema, bytes))).toEqual([[field, reason]]);
      const json = JSON.stringify({ ...(toJson(schema, message) as object), noField: 1 });
      expect(violationsOf(() => decodeJson(schema, Buffer.from(json)))).toEqual([[field, reason]]);
    },
  );

  test("is counted over all parts of a message that comes in several", () => {
    const part = (from: number, to: number) => {
      const dimensions = Object.fromEntries(Object.entries(crowd(to)).slice(from));
      return toBinary(TrackUsageRequestSchema, create(TrackUsageRequestSchema, { event: { dimensions } }));
    };
    const two = (to: number) => Buffer.concat([part(0, 15), part(15, to)]);
    expect(violationsOf(() => decodeBinary(TrackUsageRequestSchema, two(20)))).toEqual([]);
    expect(
      violationsOf(() => decodeBinary(TrackUsageRequestSchema, Buffer.concat([two(21), Buffer.from([0xff])]))),
    ).toEqual([["event.dimensions", "map.max_pairs"]]);
  });

  test.each([...everyMethod])("has a bound in every list and map of %s", (_name, { input }) => {
    expect(unbounded(input, "", new Set())).toEqual([]);
  });
});

/** The lists and maps of a message, and of what it holds, whose contract states no bound. */
function unbounded(schema: DescMessage, path: string, seen: ReadonlySet<DescMessage>): string[] {
  // Of Google's messages nobody states a bound, nor a rule about what is in them.
  if (seen.has(schema) || schema.typeName.startsWith("google.")) return [];
  return schema.fields.flatMap((field) => {
    const { type } = getOption(field, fieldRules);
    const max = type.case === "repeated" ? type.value.maxItems : type.case === "map" ? type.value.maxPairs : 0n;
    const name = `${path}${field.name}`;
    const own = (field.fieldKind === "list" || field.fieldKind === "map") && !max ? [name] : [];
    return [...own, ...(field.message ? unbounded(field.message, `${name}.`, new Set([...seen, schema])) : [])];
  });
}

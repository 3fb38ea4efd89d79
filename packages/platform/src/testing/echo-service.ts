import {
  create,
  createFileRegistry,
  type DescExtension,
  type Extendee,
  type ExtensionValueShape,
  type Message,
  type MessageInitShape,
  setExtension,
} from "@bufbuild/protobuf";
import type { GenMessage, GenService } from "@bufbuild/protobuf/codegenv2";
import {
  type FieldDescriptorProtoSchema,
  FieldOptionsSchema,
  FieldDescriptorProto_Type as FieldType,
  FileDescriptorProtoSchema,
  file_google_protobuf_timestamp,
  MethodOptions_IdempotencyLevel as Idempotency,
  FieldDescriptorProto_Label as Label,
  type MethodDescriptorProtoSchema,
  MethodOptionsSchema,
  type Timestamp,
} from "@bufbuild/protobuf/wkt";
import {
  FieldRulesSchema,
  field as fieldRules,
  file_buf_validate_validate,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import {
  deadline_ms,
  file_licet_options_v1_options,
  max_request_bytes,
  required_scope,
} from "@licet/contracts/licet/options/v1/options_pb";

/** What every method of the {@link EchoService} takes. */
export type EchoRequest = Message<"testing.v1.EchoRequest"> & {
  /** 1 to 200,000 characters. */
  text: string;
  /** Not negative. */
  count: number;
  /** 0 or 1. */
  color: number;
  /** At most 100. */
  parts: Part[];
  at?: Timestamp;
  /** Percent; its rule can't be judged for 100. */
  discount: number;
};

/** A part of a request, for paths of fields below a list. */
export type Part = Message<"testing.v1.Part"> & {
  /** Not negative. */
  quantity: number;
  at?: Timestamp;
};

/** What every method of the {@link EchoService} answers. */
export type EchoResponse = Message<"testing.v1.EchoResponse"> & { text: string; count: number; flag: boolean };

type Method<K> = { methodKind: K; input: GenMessage<EchoRequest>; output: GenMessage<EchoResponse> };

/** The service, as generated code would type it. */
export type EchoServiceDesc = GenService<{
  /** Safe to repeat; 4 s. */
  echo: Method<"unary">;
  /** Not safe to repeat. */
  write: Method<"unary">;
  /** Takes up to 200,000 bytes. */
  batch: Method<"unary">;
  /** 50 ms. */
  hurry: Method<"unary">;
  /** Declares no scope. */
  forgotten: Method<"unary">;
  /** For everyone. */
  anyone: Method<"unary">;
  expand: Method<"server_streaming">;
  /** A session lasts at most 50 ms. */
  session: Method<"server_streaming">;
  collect: Method<"client_streaming">;
  chat: Method<"bidi_streaming">;
}>;

/** The scope that all methods of the {@link EchoService} need. */
export const echoScope = "echo:call";

function set<E extends DescExtension>(options: Extendee<E>, extension: E, value: ExtensionValueShape<E>): void {
  setExtension(options, extension, value);
}

type FieldInit = MessageInitShape<typeof FieldDescriptorProtoSchema>;

function field(
  name: string,
  number: number,
  type: FieldType,
  more: FieldInit = {},
  rules?: MessageInitShape<typeof FieldRulesSchema>,
): FieldInit {
  const options = create(FieldOptionsSchema);
  if (rules !== undefined) set(options, fieldRules, create(FieldRulesSchema, rules));
  return { name, jsonName: name, number, type, label: Label.OPTIONAL, options, ...more };
}

interface MethodOptions {
  idempotency?: Idempotency;
  scope?: string;
  deadlineMs?: number;
  maxRequestBytes?: number;
  streams?: { clientStreaming?: boolean; serverStreaming?: boolean };
}

function method(name: string, options: MethodOptions = {}): MessageInitShape<typeof MethodDescriptorProtoSchema> {
  const { idempotency = Idempotency.NO_SIDE_EFFECTS, scope = echoScope, deadlineMs, maxRequestBytes } = options;
  const methodOptions = create(MethodOptionsSchema, { idempotencyLevel: idempotency });
  if (scope !== "") set(methodOptions, required_scope, scope);
  if (deadlineMs !== undefined) set(methodOptions, deadline_ms, deadlineMs);
  if (maxRequestBytes !== undefined) set(methodOptions, max_request_bytes, maxRequestBytes);
  return {
    name,
    inputType: ".testing.v1.EchoRequest",
    outputType: ".testing.v1.EchoResponse",
    options: methodOptions,
    ...options.streams,
  };
}

/** A rule whose expression divides by zero for one value. */
const divides = { id: "discount.divides", message: "must be at most 100", expression: "100 / (100 - this) > 0" };

const imports = [file_buf_validate_validate, file_licet_options_v1_options, file_google_protobuf_timestamp];

const file = create(FileDescriptorProtoSchema, {
  name: "testing/v1/echo_service.proto",
  package: "testing.v1",
  syntax: "proto3",
  dependency: imports.map(({ proto }) => proto.name),
  enumType: [
    {
      name: "Color",
      value: [
        { name: "COLOR_UNSPECIFIED", number: 0 },
        { name: "COLOR_RED", number: 1 },
      ],
    },
  ],
  messageType: [
    {
      name: "Part",
      field: [
        field(
          "quantity",
          1,
          FieldType.INT32,
          {},
          { type: { case: "int32", value: { greaterThan: { case: "gte", value: 0 } } } },
        ),
        field("at", 2, FieldType.MESSAGE, { typeName: ".google.protobuf.Timestamp" }),
      ],
    },
    {
      name: "EchoRequest",
      field: [
        field("text", 1, FieldType.STRING, {}, { type: { case: "string", value: { minLen: 1n, maxLen: 200_000n } } }),
        field(
          "count",
          2,
          FieldType.INT32,
          {},
          { type: { case: "int32", value: { greaterThan: { case: "gte", value: 0 } } } },
        ),
        field(
          "color",
          3,
          FieldType.ENUM,
          { typeName: ".testing.v1.Color" },
          { type: { case: "enum", value: { definedOnly: true } } },
        ),
        field(
          "parts",
          4,
          FieldType.MESSAGE,
          { typeName: ".testing.v1.Part", label: Label.REPEATED },
          { type: { case: "repeated", value: { maxItems: 100n } } },
        ),
        field("at", 5, FieldType.MESSAGE, { typeName: ".google.protobuf.Timestamp" }),
        field("discount", 6, FieldType.INT32, {}, { cel: [divides] }),
      ],
    },
    {
      name: "EchoResponse",
      field: [field("text", 1, FieldType.STRING), field("count", 2, FieldType.INT32), field("flag", 3, FieldType.BOOL)],
    },
  ],
  service: [
    {
      name: "EchoService",
      method: [
        // Long enough for a machine that stands still for seconds.
        method("Echo", { deadlineMs: 60_000 }),
        method("Write", { deadlineMs: 60_000, idempotency: Idempotency.IDEMPOTENCY_UNKNOWN }),
        method("Batch", { deadlineMs: 4_000, maxRequestBytes: 200_000 }),
        method("Hurry", { deadlineMs: 50 }),
        method("Forgotten", { scope: "" }),
        method("Anyone", { scope: "public" }),
        method("Expand", { streams: { serverStreaming: true } }),
        method("Session", { deadlineMs: 50, streams: { serverStreaming: true } }),
        method("Collect", { streams: { clientStreaming: true } }),
        method("Chat", { streams: { clientStreaming: true, serverStreaming: true } }),
      ],
    },
  ],
});

const registry = createFileRegistry(file, (name) => imports.find(({ proto }) => proto.name === name));

function found<T>(desc: T | undefined): T {
  if (desc === undefined) throw new Error("the echo service is missing from its own file");
  return desc;
}

/** A service that belongs to no area: all kinds of methods, with the options and rules that the pipeline acts on. */
export const EchoService = found(registry.getService("testing.v1.EchoService")) as EchoServiceDesc;

/** Describes {@link EchoRequest}. */
export const EchoRequestSchema = found(registry.getMessage("testing.v1.EchoRequest")) as GenMessage<EchoRequest>;

/** Describes {@link EchoResponse}. */
export const EchoResponseSchema = found(registry.getMessage("testing.v1.EchoResponse")) as GenMessage<EchoResponse>;

import {
  createFileRegistry,
  type DescMethodUnary,
  fromBinary,
  getOption,
  type MessageInitShape,
  toJson,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import {
  ServerReflection,
  type ServerReflectionRequestSchema,
} from "@licet/contracts/grpc/reflection/v1/reflection_pb";
import { ServerReflection as Alpha } from "@licet/contracts/grpc/reflection/v1alpha/reflection_pb";
import { required_scope } from "@licet/contracts/licet/options/v1/options_pb";
import { type EchoServer, echoKeys, startEchoServer } from "../testing/echo-server.ts";
import { type Channel, createChannel } from "./client.ts";

let server: EchoServer;
let channel: Channel;

beforeAll(async () => {
  server = await startEchoServer();
  channel = createChannel({ address: server.grpcAddress });
});

afterAll(async () => {
  channel.close();
  await server.stop();
});

type Question = NonNullable<MessageInitShape<typeof ServerReflectionRequestSchema>["messageRequest"]>;

async function ask(messageRequest: Question) {
  async function* questions() {
    yield { host: "here", messageRequest };
  }
  for await (const answer of createClient(ServerReflection, channel).serverReflectionInfo(questions())) {
    expect(answer).toMatchObject({ validHost: "here", originalRequest: { messageRequest } });
    return answer.messageResponse;
  }
  throw new Error("no answer");
}

/** The names of the files in an answer, the one asked for first. */
async function filesOf(question: Question) {
  const { case: kind, value } = await ask(question);
  if (kind !== "fileDescriptorResponse") return kind;
  return value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name);
}

test("lists what is served", async () => {
  const { value } = await ask({ case: "listServices", value: "" });
  expect(value).toMatchObject({
    service: [
      { name: "testing.v1.EchoService" },
      { name: "grpc.health.v1.Health" },
      { name: "grpc.reflection.v1.ServerReflection" },
      { name: "grpc.reflection.v1alpha.ServerReflection" },
    ],
  });
});

describe("finds the file of", () => {
  const echoFile = "testing/v1/echo_service.proto";

  test.each([
    "testing.v1.EchoService",
    "testing.v1.EchoService.Echo",
    "testing.v1.EchoRequest",
    "testing.v1.EchoRequest.text",
    "testing.v1.Color",
  ])("the symbol %s", async (value) => {
    expect(await filesOf({ case: "fileContainingSymbol", value })).toContain(echoFile);
  });

  test("a name, with all that it imports", async () => {
    const files = await filesOf({ case: "fileByFilename", value: echoFile });
    expect(files).toEqual([
      echoFile,
      "buf/validate/validate.proto",
      "google/protobuf/descriptor.proto",
      "google/protobuf/duration.proto",
      "google/protobuf/field_mask.proto",
      "google/protobuf/timestamp.proto",
      "licet/options/v1/options.proto",
    ]);
  });

  test("an extension", async () => {
    const value = { containingType: "google.protobuf.MethodOptions", extensionNumber: required_scope.number };
    expect(await filesOf({ case: "fileContainingExtension", value })).toContain("licet/options/v1/options.proto");
    const { value: numbers } = await ask({ case: "allExtensionNumbersOfType", value: value.containingType });
    expect(numbers).toMatchObject({ extensionNumber: expect.arrayContaining([required_scope.number]) });
  });
});

test.each<Question>([
  { case: "fileByFilename", value: "missing.proto" },
  { case: "fileContainingSymbol", value: "testing.v1.Missing" },
  { case: "fileContainingExtension", value: { containingType: "testing.v1.EchoRequest", extensionNumber: 1 } },
  { case: undefined },
])("says so when there is nothing: $case", async (question) => {
  expect(await filesOf(question)).toBe("errorResponse");
});

test("v1alpha answers alike", async () => {
  async function* questions() {
    yield { messageRequest: { case: "listServices" as const, value: "" } };
  }
  for await (const { messageResponse } of createClient(Alpha, channel).serverReflectionInfo(questions())) {
    expect(messageResponse.case).toBe("listServicesResponse");
  }
});

test("a client without generated code can call what it finds, and reads the options", async () => {
  const answer = await ask({ case: "fileContainingSymbol", value: "testing.v1.EchoService" });
  if (answer.case !== "fileDescriptorResponse") throw new Error("no files");
  const [file, ...imports] = answer.value.fileDescriptorProto.map((bytes) =>
    fromBinary(FileDescriptorProtoSchema, bytes),
  );
  if (file === undefined) throw new Error("no file");
  const registry = createFileRegistry(file, (name) => imports.find((imported) => imported.name === name));
  const service = registry.getService("testing.v1.EchoService");
  const method = service?.methods.find(({ name }) => name === "Echo") as DescMethodUnary;
  expect(getOption(method, required_scope)).toBe("echo:call");

  const headers = { authorization: `Bearer ${echoKeys.allowed}` };
  const { message } = await channel.unary(method, undefined, undefined, headers, { text: "dynamic" });
  expect(toJson(method.output, message)).toEqual({ text: "acme:dynamic" });
});

import {
  create,
  createFileRegistry,
  type DescFile,
  type DescMethod,
  fromBinary,
  fromJson,
  type JsonObject,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import {
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from "@licet/contracts/grpc/reflection/v1/reflection_pb";
import { type Outcome, type RawClient, refusal } from "./outcome.ts";

/** A gRPC client that knows nothing of Licet's contracts but what reflection tells it. */
export interface ReflectingClient extends RawClient {
  close(): void;
}

/** Connects to `host:port`. */
export function reflectingClient(address: string): ReflectingClient {
  const client = new grpc.Client(address, grpc.credentials.createInsecure());
  const methods = new Map<string, Promise<DescMethod>>();

  const methodOf = (name: string): Promise<DescMethod> => {
    const known = methods.get(name) ?? findMethod(client, name);
    methods.set(name, known);
    return known;
  };
  const send = (key: string | undefined, method: DescMethod, bytes: Uint8Array) =>
    callUnary(client, key, method, Buffer.from(bytes));

  return {
    async call(key, name, body) {
      const method = await methodOf(name);
      return send(key, method, toBinary(method.input, fromJson(method.input, body)));
    },
    async callWithBytes(key, name, bytes) {
      return send(key, await methodOf(name), bytes);
    },
    close: () => client.close(),
  };
}

const asIs = (bytes: Buffer): Buffer => bytes;

function callUnary(
  client: grpc.Client,
  key: string | undefined,
  method: DescMethod,
  request: Buffer,
): Promise<Outcome> {
  const metadata = new grpc.Metadata();
  if (key !== undefined) metadata.set("x-api-key", key);
  return new Promise((resolve) => {
    const path = `/${method.parent.typeName}/${method.name}`;
    const options = { deadline: Date.now() + 20_000 };
    client.makeUnaryRequest(path, asIs, asIs, request, metadata, options, (error, reply?: Buffer) => {
      if (error === null && reply !== undefined) {
        const message = fromBinary(method.output, reply);
        resolve({ reply: toJson(method.output, message, { alwaysEmitImplicit: true }) as JsonObject });
      } else if (error !== null) {
        resolve(fromGrpcError(error));
      }
    });
  });
}

function fromGrpcError(error: grpc.ServiceError): Outcome {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  const details = Buffer.isBuffer(packed) ? fromBinary(StatusSchema, packed).details : [];
  const code = grpc.status[error.code] ?? "UNKNOWN";
  return refusal(
    code,
    error.details,
    details.map(({ typeUrl, value }) => ({ type: typeUrl, value })),
  );
}

async function findMethod(client: grpc.Client, name: string): Promise<DescMethod> {
  const [serviceName = "", methodName] = name.split("/");
  const files = await reflect(client, serviceName);
  const method = buildFiles(files)
    .flatMap(({ services }) => services)
    .find(({ typeName }) => typeName === serviceName)
    ?.methods.find((candidate) => candidate.name === methodName);
  if (method === undefined) throw new Error(`reflection knows no method ${name}`);
  return method;
}

/** Asks for the file of a symbol; the answer holds its imports too. */
async function reflect(client: grpc.Client, symbol: string): Promise<FileDescriptorProto[]> {
  const stream = client.makeBidiStreamRequest<ServerReflectionRequest, ServerReflectionResponse>(
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    (request) => Buffer.from(toBinary(ServerReflectionRequestSchema, request)),
    (bytes) => fromBinary(ServerReflectionResponseSchema, bytes),
  );
  const messageRequest = { case: "fileContainingSymbol" as const, value: symbol };
  stream.write(create(ServerReflectionRequestSchema, { messageRequest }));
  stream.end();
  for await (const { messageResponse } of stream as AsyncIterable<ServerReflectionResponse>) {
    if (messageResponse.case !== "fileDescriptorResponse") break;
    return messageResponse.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
  }
  throw new Error(`reflection does not know ${symbol}`);
}

/** Makes descriptors of the files, each after those that it imports. */
function buildFiles(protos: readonly FileDescriptorProto[]): DescFile[] {
  const built = new Map<string, DescFile>();
  const build = (name: string): DescFile | undefined => {
    const proto = protos.find((candidate) => candidate.name === name);
    const file = built.get(name) ?? (proto && createFileRegistry(proto, build).getFile(name));
    if (file !== undefined) built.set(name, file);
    return file;
  };
  return protos.map(({ name }) => build(name)).filter((file) => file !== undefined);
}

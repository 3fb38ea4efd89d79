import { createRegistry, type DescFile, type DescService, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@licet/contracts/google/rpc/code_pb";
import { file_google_rpc_error_details } from "@licet/contracts/google/rpc/error_details_pb";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from "@licet/contracts/grpc/reflection/v1/reflection_pb";
import { ServerReflection as ServerReflectionAlpha } from "@licet/contracts/grpc/reflection/v1alpha/reflection_pb";
import type { Call } from "./call.ts";
import { type Handlers, implement, type ServiceBinding } from "./handlers.ts";

/** All that reflection can be asked about. */
interface Index {
  readonly services: readonly DescService[];
  readonly files: ReadonlyMap<string, DescFile>;
  /** The file that declares a symbol: a service, method, message, field, enum or extension. */
  fileOf(symbol: string): DescFile | undefined;
}

type Answer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;

/**
 * Server reflection, with which grpcurl and `buf curl` list and call services
 * without generated code: version v1, and v1alpha, which is word for word the
 * same, for older tools. Files are sent as they were compiled, custom options
 * included.
 *
 * @param bindings the services to tell about; reflection adds itself.
 */
export function createReflection(bindings: readonly ServiceBinding[]): ServiceBinding[] {
  const services = [...bindings.map(({ service }) => service), ServerReflection, ServerReflectionAlpha];
  const index = createIndex(services);
  const handlers: Handlers<typeof ServerReflection, Index> = { serverReflectionInfo: reflect };
  // The messages of both versions differ in nothing but the name of their package.
  const alphaHandlers = handlers as unknown as Handlers<typeof ServerReflectionAlpha, Index>;
  return [
    { ...implement(ServerReflection, index, handlers), open: true },
    { ...implement(ServerReflectionAlpha, index, alphaHandlers), open: true },
  ];
}

async function* reflect(index: Index, _call: Call, requests: AsyncIterable<ServerReflectionRequest>) {
  for await (const request of requests) {
    const messageResponse = answer(index, request.messageRequest);
    yield { validHost: request.host, originalRequest: request, messageResponse };
  }
}

function answer(index: Index, request: ServerReflectionRequest["messageRequest"]): Answer {
  switch (request.case) {
    case "listServices":
      return {
        case: "listServicesResponse",
        value: { service: index.services.map(({ typeName }) => ({ name: typeName })) },
      };
    case "fileByFilename":
      return fileResponse(index.files.get(request.value), request.value);
    case "fileContainingSymbol":
      return fileResponse(index.fileOf(request.value), request.value);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = request.value;
      const file = extensionsOf(index, containingType).find(({ number }) => number === extensionNumber)?.file;
      return fileResponse(file, `${containingType} extension ${extensionNumber}`);
    }
    case "allExtensionNumbersOfType": {
      const extensionNumber = extensionsOf(index, request.value).map(({ number }) => number);
      return { case: "allExtensionNumbersResponse", value: { baseTypeName: request.value, extensionNumber } };
    }
    default:
      return failure(Code.INVALID_ARGUMENT, "the request asks for nothing");
  }
}

/** The file and all that it imports: tools need them all, and need not ask again. */
function fileResponse(file: DescFile | undefined, asked: string): Answer {
  if (file === undefined) return failure(Code.NOT_FOUND, `not found: ${asked}`);
  const files = new Map<string, DescFile>();
  collect(file, files);
  const fileDescriptorProto = [...files.values()].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
}

function failure(errorCode: Code, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}

function createIndex(services: readonly DescService[]): Index {
  const files = new Map<string, DescFile>();
  for (const { file } of services) collect(file, files);
  // No method names the details of errors; tools ask for them when they get one.
  collect(file_google_rpc_error_details, files);
  const registry = createRegistry(...files.values());
  return {
    services,
    files,
    // A member (method, field, enum value) is found by what it belongs to.
    fileOf: (symbol) => (registry.get(symbol) ?? registry.get(symbol.slice(0, symbol.lastIndexOf("."))))?.file,
  };
}

function collect(file: DescFile, into: Map<string, DescFile>): void {
  if (into.has(file.proto.name)) return;
  into.set(file.proto.name, file);
  for (const dependency of file.dependencies) collect(dependency, into);
}

function extensionsOf({ files }: Index, typeName: string) {
  return [...files.values()]
    .flatMap(({ extensions }) => extensions)
    .filter(({ extendee }) => extendee.typeName === typeName);
}

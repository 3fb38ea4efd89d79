import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import * as grpc from "@grpc/grpc-js";
import { type Status, StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import { codeNumber, fromStatus, type ServiceError, toStatus } from "../errors.ts";

/** The trailer that carries a `google.rpc.Status` with its details. */
const DETAILS_KEY = "grpc-status-details-bin";

/** The metadata as headers; values of `-bin` keys become base64, as the web transports have them. */
export function fromMetadata(metadata: grpc.Metadata): Headers {
  const headers = new Headers();
  for (const [name, values] of Object.entries(metadata.toHttp2Headers())) {
    for (const value of [values].flat()) headers.append(name, String(value));
  }
  return headers;
}

/** The headers as metadata; the inverse of {@link fromMetadata}. */
export function toMetadata(headers: Headers, options?: grpc.MetadataOptions): grpc.Metadata {
  const metadata = new grpc.Metadata(options);
  headers.forEach((value, name) => {
    metadata.add(name, name.endsWith("-bin") ? Buffer.from(base64Decode(value)) : value);
  });
  return metadata;
}

/** The error as grpc-js sends it, details included. */
export function toGrpcStatus(error: ServiceError, trailers?: Headers): grpc.StatusObject {
  const metadata = trailers === undefined ? new grpc.Metadata() : toMetadata(trailers);
  metadata.set(DETAILS_KEY, Buffer.from(toBinary(StatusSchema, toStatus(error))));
  return { code: codeNumber[error.code], details: error.message, metadata };
}

/** The error that grpc-js received, rebuilt from its details where the server sent some. */
export function fromGrpcStatus(status: Pick<grpc.StatusObject, "code" | "details" | "metadata">): ServiceError {
  return fromStatus(detailed(status.metadata) ?? { code: status.code, message: status.details, details: [] });
}

/** The details of a status; undefined when there are none or a foreign server sent something else under their name. */
function detailed(metadata: grpc.Metadata): Status | undefined {
  const [bytes] = metadata.get(DETAILS_KEY);
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    return fromBinary(StatusSchema, bytes);
  } catch {
    return undefined;
  }
}

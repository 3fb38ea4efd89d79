import { type DescMessage, fromBinary, type JsonObject, type MessageShape } from "@bufbuild/protobuf";
import { BadRequestSchema, ErrorInfoSchema } from "@licet/contracts/google/rpc/error_details_pb";

/** What a call came to, in the same words for every client. */
export type Outcome = { readonly reply: JsonObject } | { readonly refusal: Refusal };

/** An error as any client can read it from status and details. */
export interface Refusal {
  /** `NOT_FOUND` and so on. */
  readonly code: string;
  /** From ErrorInfo of Licet's domain; undefined when there is none. */
  readonly reason: string | undefined;
  readonly message: string;
  /** The fields that BadRequest names. */
  readonly fields: readonly string[];
}

/** A client that is not ours: what it sends and reads is not made by the code it talks to. */
export interface ForeignClient {
  /**
   * Calls a unary method.
   *
   * @param key - the API key; undefined sends none
   * @param method - full name, `package.Service/Method`
   * @param body - the request in protobuf's JSON
   */
  call(key: string | undefined, method: string, body: JsonObject): Promise<Outcome>;
}

/** A foreign client that can also send what is no request. */
export interface RawClient extends ForeignClient {
  /** Calls a method with bytes as they are. */
  callWithBytes(key: string | undefined, method: string, bytes: Uint8Array): Promise<Outcome>;
}

/** A detail of an error as it travels: a type name or URL, and bytes. */
export interface PackedDetail {
  readonly type: string;
  readonly value: Uint8Array;
}

/** Reads a refusal from what every protocol transmits. */
export function refusal(code: string, message: string, details: readonly PackedDetail[]): Outcome {
  const find = <D extends DescMessage>(schema: D): MessageShape<D> | undefined => {
    const found = details.find(({ type }) => type.split("/").at(-1) === schema.typeName);
    return found && fromBinary(schema, found.value);
  };
  const info = find(ErrorInfoSchema);
  const reason = info?.domain === "licet.dev" ? info.reason : undefined;
  const fields = find(BadRequestSchema)?.fieldViolations.map(({ field }) => field) ?? [];
  return { refusal: { code: code.toUpperCase(), reason, message, fields } };
}

import { create, createFileRegistry } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";

// service Notes { rpc Write(WriteRequest {request_id, body, labels, amount}) returns (WriteResponse {text}) }
const registry = createFileRegistry(
  create(FileDescriptorProtoSchema, {
    name: "example.proto",
    package: "example",
    syntax: "proto3",
    messageType: [
      {
        name: "WriteRequest",
        field: [
          { name: "request_id", number: 1, type: Type.STRING, label: Label.OPTIONAL, jsonName: "requestId" },
          { name: "body", number: 2, type: Type.STRING, label: Label.OPTIONAL, jsonName: "body" },
          {
            name: "labels",
            number: 3,
            type: Type.MESSAGE,
            typeName: ".example.WriteRequest.LabelsEntry",
            label: Label.REPEATED,
            jsonName: "labels",
          },
          { name: "amount", number: 4, type: Type.INT64, label: Label.OPTIONAL, jsonName: "amount" },
        ],
        nestedType: [
          {
            name: "LabelsEntry",
            options: { mapEntry: true },
            field: [
              { name: "key", number: 1, type: Type.STRING, label: Label.OPTIONAL, jsonName: "key" },
              { name: "value", number: 2, type: Type.STRING, label: Label.OPTIONAL, jsonName: "value" },
            ],
          },
        ],
      },
      {
        name: "WriteResponse",
        field: [{ name: "text", number: 1, type: Type.STRING, label: Label.OPTIONAL, jsonName: "text" }],
      },
    ],
    service: [
      {
        name: "Notes",
        method: [
          { name: "Write", inputType: ".example.WriteRequest", outputType: ".example.WriteResponse" },
          { name: "Rewrite", inputType: ".example.WriteRequest", outputType: ".example.WriteResponse" },
        ],
      },
    ],
  }),
  () => undefined,
);

function described<T>(found: T | undefined): T {
  if (found === undefined) throw new Error("not in the test's descriptor");
  return found;
}

/** A service whose calls write, for tests of what surrounds them. */
export const notes = described(registry.getService("example.Notes"));
/** Its methods: two with the same request. */
export const methods = { write: described(notes.method.write), rewrite: described(notes.method.rewrite) };
/** The response of both. */
export const response = described(registry.getMessage("example.WriteResponse"));

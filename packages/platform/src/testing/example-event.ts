import { create, createFileRegistry, type Message, setExtension } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  MessageOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import { topic } from "@licet/contracts/licet/options/v1/options_pb";

/** An event that belongs to no service, for tests of the bus. */
export type ExampleEvent = Message<"example.v1.ExampleEvent"> & {
  /** Whom it concerns. */
  subject: string;
  /** Counts the events of one subject from 0. */
  number: number;
};

/** Describes {@link ExampleEvent} as the payload of a topic with the given name and number of partitions. */
export function exampleEvent(name: string, partitions = 1): GenMessage<ExampleEvent> {
  const options = create(MessageOptionsSchema);
  setExtension(options, topic, {
    $typeName: "licet.options.v1.Topic",
    name,
    partitions,
    compacted: false,
    retentionDays: 1,
  });
  const field = { label: FieldDescriptorProto_Label.OPTIONAL };
  const registry = createFileRegistry(
    create(FileDescriptorProtoSchema, {
      name: "example/v1/example.proto",
      package: "example.v1",
      syntax: "proto3",
      messageType: [
        {
          name: "ExampleEvent",
          options,
          field: [
            { ...field, name: "subject", jsonName: "subject", number: 1, type: FieldDescriptorProto_Type.STRING },
            { ...field, name: "number", jsonName: "number", number: 2, type: FieldDescriptorProto_Type.UINT32 },
          ],
        },
      ],
    }),
    () => undefined,
  );
  const found = registry.getMessage("example.v1.ExampleEvent");
  if (found === undefined) throw new Error("the example event is missing from its own file");
  return found as GenMessage<ExampleEvent>;
}

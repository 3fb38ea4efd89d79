/**
 * Writes the .proto files of others that ours import, or that we serve, to node_modules/.protos, taken from the npm
 * packages that carry them. So no third-party contract is copied into this repository, and its version is the one in
 * the lockfile. `buf/validate` is in no package as source: it is printed from the descriptor inside protovalidate.
 */
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import {
  type DescEnum,
  type DescExtension,
  type DescField,
  type DescFile,
  type DescMessage,
  ScalarType,
} from "@bufbuild/protobuf";
import { Edition, FieldDescriptorProto_Label } from "@bufbuild/protobuf/wkt";
import { file_buf_validate_validate } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

/** Package → folder of protos inside it → files that are needed. */
const copied = [
  {
    package: "google-proto-files",
    folder: ".",
    files: ["google/rpc/status.proto", "google/rpc/error_details.proto", "google/rpc/code.proto"],
  },
  { package: "grpc-health-check", folder: "proto", files: ["health/v1/health.proto"], target: "grpc" },
  {
    package: "@grpc/reflection",
    folder: "build/proto",
    files: ["grpc/reflection/v1/reflection.proto", "grpc/reflection/v1alpha/reflection.proto"],
  },
];

/** Where the files are written; buf.yaml names it as a module. */
export const thirdPartyProtos = path.resolve(import.meta.dirname, "../node_modules/.protos");

/** Writes all files anew. */
export function writeThirdPartyProtos(): void {
  rmSync(thirdPartyProtos, { recursive: true, force: true });
  const { resolve } = createRequire(import.meta.url);
  for (const source of copied) {
    const folder = path.join(path.dirname(resolve(`${source.package}/package.json`)), source.folder);
    for (const file of source.files) {
      cpSync(path.join(folder, file), path.join(thirdPartyProtos, source.target ?? "", file));
    }
  }
  const target = path.join(thirdPartyProtos, "buf/validate/validate.proto");
  mkdirSync(path.dirname(target), { recursive: true });
  writeFileSync(target, printFile(file_buf_validate_validate));
}

type Syntax = "proto2" | "proto3";

function printFile(file: DescFile): string {
  if (file.edition !== Edition.EDITION_PROTO2 && file.edition !== Edition.EDITION_PROTO3) {
    throw new Error(`${file.proto.name} uses an edition; this printer knows proto2 and proto3 only`);
  }
  const syntax = file.edition === Edition.EDITION_PROTO3 ? "proto3" : "proto2";
  return [
    `syntax = "${syntax}";`,
    `package ${file.proto.package};`,
    ...file.proto.dependency.map((name) => `import "${name}";`),
    ...file.enums.flatMap(printEnum),
    ...file.messages.flatMap((message) => printMessage(message, syntax)),
    ...file.extensions.flatMap((extension) => printExtension(extension, syntax)),
    "",
  ].join("\n");
}

function printMessage(message: DescMessage, syntax: Syntax): string[] {
  const { proto } = message;
  return block(`message ${message.name}`, [
    ...message.nestedEnums.flatMap(printEnum),
    ...message.nestedMessages.flatMap((nested) => printMessage(nested, syntax)),
    ...message.nestedExtensions.flatMap((extension) => printExtension(extension, syntax)),
    ...message.fields.filter((field) => field.oneof === undefined).map((field) => printField(field, syntax)),
    ...message.oneofs.flatMap((oneof) =>
      block(
        `oneof ${oneof.name}`,
        oneof.fields.map((field) => printField(field, syntax)),
      ),
    ),
    // A descriptor's ranges exclude their end, the language's include it.
    ...proto.extensionRange.map(({ start, end }) => `extensions ${start} to ${end > 0x1fffffff ? "max" : end - 1};`),
    ...proto.reservedRange.map(({ start, end }) => `reserved ${start} to ${end - 1};`),
    ...printReservedNames(proto.reservedName),
  ]);
}

function printEnum(desc: DescEnum): string[] {
  return block(`enum ${desc.name}`, [
    ...(desc.proto.options?.allowAlias ? ["option allow_alias = true;"] : []),
    ...desc.values.map((value) => `${value.proto.name} = ${value.number};`),
    // Unlike a message's, an enum's reserved range includes its end.
    ...desc.proto.reservedRange.map(({ start, end }) => `reserved ${start} to ${end};`),
    ...printReservedNames(desc.proto.reservedName),
  ]);
}

function printExtension(extension: DescExtension, syntax: Syntax): string[] {
  return block(`extend .${extension.extendee.typeName}`, [printField(extension, syntax)]);
}

function printField(field: DescField | DescExtension, syntax: Syntax): string {
  const { proto } = field;
  const options = [
    ...(proto.options?.packed ? ["packed = true"] : []),
    ...(proto.options?.deprecated ? ["deprecated = true"] : []),
    ...(proto.defaultValue ? [`default = ${proto.defaultValue}`] : []),
  ];
  return `${label(field, syntax)}${typeOf(field)} ${proto.name} = ${field.number}${options.length > 0 ? ` [${options.join(", ")}]` : ""};`;
}

function label(field: DescField | DescExtension, syntax: Syntax): string {
  const { proto } = field;
  if (field.fieldKind === "map" || field.oneof !== undefined) return "";
  if (proto.label === FieldDescriptorProto_Label.REPEATED) return "repeated ";
  if (proto.label === FieldDescriptorProto_Label.REQUIRED) return "required ";
  return syntax === "proto2" || proto.proto3Optional ? "optional " : "";
}

function typeOf(field: DescField | DescExtension): string {
  if (field.fieldKind === "map") return `map<${scalar(field.mapKey)}, ${elementType(field)}>`;
  return elementType(field);
}

function elementType(field: DescField | DescExtension): string {
  const desc = field.message ?? field.enum;
  if (desc !== undefined) return `.${desc.typeName}`;
  if (field.scalar === undefined) throw new Error(`${field.toString()} has no type`);
  return scalar(field.scalar);
}

function scalar(type: ScalarType): string {
  return ScalarType[type].toLowerCase();
}

function printReservedNames(names: readonly string[]): string[] {
  return names.length === 0 ? [] : [`reserved ${names.map((name) => `"${name}"`).join(", ")};`];
}

function block(head: string, body: readonly string[]): string[] {
  return [`${head} {`, ...body.map((line) => `  ${line}`), "}"];
}

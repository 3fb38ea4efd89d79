import { readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type DescMessage, hasOption } from "@bufbuild/protobuf";
import { expect, test } from "@jest/globals";
import { topic } from "@licet/contracts/licet/options/v1/options_pb";
import { topicOf } from "@licet/platform/events/cloudevent";
import { topics } from "./topics.ts";

test("every topic that a contract declares is listed once", async () => {
  const generated = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../contracts/gen/licet");
  const declared: string[] = [];
  for (const file of readdirSync(generated, { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith("_pb.js")) continue;
    const module = (await import(path.join(generated, file))) as Record<string, { kind?: string }>;
    const messages = Object.values(module).filter((value): value is DescMessage => value?.kind === "message");
    declared.push(...messages.filter((message) => hasOption(message, topic)).map((message) => topicOf(message).name));
  }
  expect(declared.length).toBeGreaterThan(3);
  expect(topics.map(({ name }) => name).sort()).toEqual(declared.sort());
});

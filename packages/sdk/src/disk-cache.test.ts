import { mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, expect, test } from "@jest/globals";
import fc from "fast-check";
import { createDiskCache, type StoredFacts } from "./disk-cache.ts";

const directories: string[] = [];
afterEach(async () => {
  for (const directory of directories.splice(0)) await rm(directory, { recursive: true, force: true });
});

async function open(maxFileBytes?: number) {
  const directory = await mkdtemp(path.join(os.tmpdir(), "licet-sdk-"));
  directories.push(directory);
  const warn = (error: Error): never => {
    throw error;
  };
  return {
    directory,
    cache: createDiskCache({ directory, secret: "k", scope: "all", warn, ...(maxFileBytes && { maxFileBytes }) }),
  };
}

const head = { id: "f1", writtenAtMs: 1, resumeToken: "t", factsAsOfMs: 0 };

test("facts come out as they went in, however long and however many", async () => {
  const { cache } = await open();
  const anyMessage = fc
    .tuple(fc.oneof(fc.nat(300), fc.nat(200_000)), fc.nat(255))
    .map(([length, byte]) => new Uint8Array(length).fill(byte));
  const property = fc.asyncProperty(fc.array(anyMessage, { maxLength: 8 }), async (messages) => {
    await cache.writeFacts({ ...head, messages });
    const { messages: read = [], ...rest } = cache.read().facts ?? {};
    expect(rest).toEqual(head);
    expect([...read].map((message) => Buffer.from(message).toString("hex"))).toEqual(
      messages.map((message) => Buffer.from(message).toString("hex")),
    );
  });
  await fc.assert(property, { numRuns: 40 });
});

test("what would be too large leaves the file that is there, and nothing else", async () => {
  const { directory, cache } = await open(1_000_000);
  const one = new Uint8Array(100_000);
  await cache.writeFacts({ ...head, messages: [Uint8Array.of(7)] });
  let made = 0;
  const endless: StoredFacts["messages"] = {
    *[Symbol.iterator]() {
      for (; ; made++) yield one;
    },
  };
  await expect(cache.writeFacts({ ...head, messages: endless })).rejects.toThrow("would have more than 1000000 bytes");
  expect(made).toBeLessThan(20);
  expect(await readdir(directory)).toEqual(["entitlements.licet"]);
  expect([...(cache.read().facts?.messages ?? [])].map((message) => [...message])).toEqual([[7]]);
});

test("what a process left that ended while it wrote is removed once nobody can be writing it", async () => {
  const { directory, cache } = await open();
  const names = ["entitlements.licet.1.tmp", "entitlements.licet.2.tmp", "notes.tmp"];
  const longAgo = new Date(Date.now() - 2 * 3_600_000);
  for (const name of names) await writeFile(path.join(directory, name), "half");
  for (const name of ["entitlements.licet.1.tmp", "notes.tmp"])
    await utimes(path.join(directory, name), longAgo, longAgo);
  await cache.writeFacts({ ...head, messages: [] });
  expect((await readdir(directory)).sort()).toEqual(["entitlements.licet", ...names.slice(1)].sort());
});

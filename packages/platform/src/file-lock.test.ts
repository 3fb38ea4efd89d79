import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { tryLockFile } from "./file-lock.ts";
import { startProgram } from "./testing/child.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "licet-lock-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("one holder at a time, in this process too, until it lets go", () => {
  const path = join(folder, "same");
  const first = tryLockFile(path);
  expect(first).toBeDefined();
  expect(tryLockFile(path)).toBeUndefined();
  first?.release();
  const second = tryLockFile(path);
  expect(second).toBeDefined();
  second?.release();
});

test("another process is kept out, and a killed one lets go", async () => {
  const path = join(folder, "other");
  const holder = await startProgram("hold-lock.ts", path);
  expect(holder.line).toBe("held");
  expect(tryLockFile(path)).toBeUndefined();
  const rival = await startProgram("hold-lock.ts", path);
  expect(rival.line).toBe("busy");
  await rival.kill();
  await holder.kill();
  const lock = tryLockFile(path);
  expect(lock).toBeDefined();
  lock?.release();
});

test("a path that cannot be opened is named", () => {
  expect(() => tryLockFile(join(folder, "absent", "lock"))).toThrow(/cannot lock .*absent/);
});

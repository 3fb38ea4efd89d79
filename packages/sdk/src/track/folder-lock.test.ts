import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "@jest/globals";
import { lockFolder } from "./folder-lock.ts";

const root = mkdtempSync(path.join(tmpdir(), "licet-lock-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

test("a second copy of this module in the same process has no folder that the first one has", () => {
  const lock = lockFolder(root);
  const owner = path.join(root, "owner");
  const name = readFileSync(owner);
  lock.release();
  writeFileSync(owner, name);
  expect(() => lockFolder(root)).toThrow(`${root} is in use by process ${process.pid}`);
  // The same id in an earlier run, as the first process of a container always has it.
  writeFileSync(owner, `${process.pid} 1 another-boot`);
  lockFolder(root).release();
  expect(readdirSync(root)).toEqual([]);
});

/** Two of these meet in each folder, and write down which of them got it. */
const racer = `
  import { existsSync, writeFileSync } from "node:fs";
  import { lockFolder } from ${JSON.stringify(path.join(import.meta.dirname, "folder-lock.ts"))};
  const [me, other, ...folders] = process.argv.slice(1);
  function meet(file) {
    writeFileSync(file + me, "");
    for (const until = Date.now() + 60_000; !existsSync(file + other); ) {
      if (Date.now() > until) throw new Error("the other one is gone");
    }
  }
  for (const folder of folders) {
    meet(folder + "/at-");
    try {
      lockFolder(folder);
      writeFileSync(folder + "/got-" + me, "");
    } catch (error) {
      if (!error.message.includes("is in use by process")) throw error;
    }
  }
  // Nobody may be gone before the other one has looked.
  meet(folders.at(-1) + "/end-");
`;

test.each([
  ["is free", undefined],
  ["a dead process has left", `${2 ** 22 + 1} 1 boot`],
])(
  "of two processes that take a folder that %s at the same moment one gets it",
  async (_what, left) => {
    const folders = Array.from({ length: 100 }, (_, i) =>
      path.join(root, `${left === undefined ? "free" : "left"}-${i}`),
    );
    for (const folder of folders) {
      mkdirSync(folder);
      if (left !== undefined) writeFileSync(path.join(folder, "owner"), left);
    }
    const start = (me: string, other: string) =>
      spawn(process.execPath, ["--input-type=module", "-e", racer, me, other, ...folders], { stdio: "inherit" });
    const racers = [start("a", "b"), start("b", "a")];
    expect(await Promise.all(racers.map((one) => once(one, "exit")))).toEqual([
      [0, null],
      [0, null],
    ]);
    const got = folders.map((folder) => readdirSync(folder).filter((name) => name.startsWith("got-")).length);
    expect(got).toEqual(folders.map(() => 1));
    expect(folders.flatMap((folder) => readdirSync(folder)).filter((name) => name.startsWith("owner."))).toEqual([]);
  },
  // They wait for each other without a pause, which takes its time where others keep the processors busy.
  300_000,
);

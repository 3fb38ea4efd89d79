import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "@jest/globals";

const root = path.resolve(import.meta.dirname, "../../..");

test("the samples of docs/guides/sdk.md compile", () => {
  const guide = readFileSync(path.join(root, "docs/guides/sdk.md"), "utf8");
  const samples = [...guide.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = ""]) => code);
  expect(samples.length).toBeGreaterThanOrEqual(3);

  // Inside the package, so that it is found by its own name; the folder is one that git and Jest overlook.
  const parent = path.join(root, "packages/sdk/.licet");
  mkdirSync(parent, { recursive: true });
  const directory = mkdtempSync(path.join(parent, "guide-"));
  try {
    for (const [index, code] of samples.entries()) writeFileSync(path.join(directory, `sample-${index}.ts`), code);
    const config = { extends: "../../../../tsconfig.source.json", include: ["*.ts"] };
    writeFileSync(path.join(directory, "tsconfig.json"), JSON.stringify(config));
    const tsc = spawnSync(path.join(root, "node_modules/.bin/tsc"), ["-p", directory], { encoding: "utf8" });
    expect(tsc.stdout).toBe("");
    expect(tsc.status).toBe(0);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

/**
 * `pnpm generate`: protos of others → format of ours → generated code in packages/contracts/gen.
 * With `--verify` nothing in the tree is changed: it fails and names the files that differ (the check CI makes).
 */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, globSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { writeThirdPartyProtos } from "./third-party-protos.ts";

const root = path.resolve(import.meta.dirname, "..");
const target = "packages/contracts/gen";
const scratch = "node_modules/.generated";

const verify = process.argv.includes("--verify");

writeThirdPartyProtos();
if (!verify) buf("format", "-w", "proto");
rmSync(path.join(root, scratch), { recursive: true, force: true });
mkdirSync(path.join(root, scratch), { recursive: true });
// Generated beside, then only what differs is moved over: a test that runs meanwhile never misses a file.
buf("generate", "--output", scratch);

const differing = differences();
if (!verify) {
  for (const file of differing) {
    const made = path.join(root, scratch, target, file);
    if (existsSync(made)) cpSync(made, path.join(root, target, file));
    else rmSync(path.join(root, target, file));
  }
  console.log(`${target}: ${differing.length} files changed`);
} else if (differing.length > 0) {
  console.error(`${target} is not what \`pnpm generate\` makes:\n${differing.map((file) => `  ${file}`).join("\n")}`);
  process.exitCode = 1;
}

function buf(...args: string[]): void {
  execFileSync("buf", args, { cwd: root, stdio: "inherit" });
}

/** Paths below the target that are missing, surplus or different. */
function differences(): string[] {
  const made = path.join(root, scratch, target);
  const present = path.join(root, target);
  const names = new Set([made, present].flatMap((folder) => globSync("**/*.{js,d.ts}", { cwd: folder })));
  return [...names].filter((name) => read(path.join(made, name)) !== read(path.join(present, name))).sort();
}

function read(file: string): string | undefined {
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}

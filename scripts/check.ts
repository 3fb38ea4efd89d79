/**
 * `pnpm check`: everything that is judged without running the product. All checks run, also after one failed; the
 * exit code is 1 when any failed. Run `pnpm format` and `pnpm generate` to mend what can be mended by a program.
 */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { performance } from "node:perf_hooks";

interface Check {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
}

const root = path.resolve(import.meta.dirname, "..");
const script = (name: string, ...args: string[]): Check["command"] => [
  process.execPath,
  "-C",
  "licet-src",
  path.join("scripts", name),
  ...args,
];

const checks: readonly Check[] = [
  // First, because it writes the third-party protos that the other buf checks read.
  { name: "generated contracts", command: script("generate.ts", "--verify") },
  { name: "proto lint", command: ["buf", "lint"] },
  { name: "proto format", command: ["buf", "format", "--diff", "--exit-code", "proto"] },
  { name: "proto compatibility", command: script("breaking.ts") },
  { name: "lint and format", command: ["biome", "check", "--error-on-warnings"] },
  { name: "types", command: ["tsc", "--noEmit"] },
  { name: "unused code", command: ["knip"] },
  { name: "settings reference", command: script("generate-settings.ts", "--verify") },
  { name: "reasons reference", command: script("generate-reasons.ts", "--verify") },
  { name: "generated schema types", command: script("generate-db.ts", "--verify") },
];

const failed = checks.filter(({ name, command: [program, ...args] }) => {
  console.log(`\n── ${name}: ${[path.basename(program), ...args].join(" ")}`);
  const startedAt = performance.now();
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: "inherit" });
  if (error !== undefined) console.error(error.message);
  console.log(
    `── ${name}: ${status === 0 ? "ok" : "FAILED"} (${((performance.now() - startedAt) / 1000).toFixed(1)} s)`,
  );
  return status !== 0;
});

console.log(`\n${checks.length} checks, ${failed.length} failed`);
for (const { name } of failed) console.log(`  failed: ${name}`);
if (failed.length > 0) process.exitCode = 1;

import { execFile, spawnSync } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";

const root = path.resolve(import.meta.dirname, "../..");
const module = path.join(root, "examples/license-events/go");
/** Fetching modules for the first time and compiling all of them, on two cores under load. */
const timeout = 500_000;
/** Where Go's own installer puts it, which is not on everybody's path. */
const installed = "/usr/local/go/bin";
const searchPath = [process.env.PATH, installed].join(path.delimiter);
// The Go that is here is the one that runs: it does not fetch another one of itself.
const env = { ...process.env, PATH: searchPath, GOTOOLCHAIN: "local", GOFLAGS: "-mod=readonly" };

/** Why the Go examples can't be built here, or undefined when they can. Fetches their modules. */
export function whyNoGo(): string | undefined {
  const go = (...args: string[]) => spawnSync("go", args, { cwd: module, env, encoding: "utf8", timeout });
  if (go("version").status !== 0) return `there is no Go (go) on the path or in ${installed}`;
  const { status, stderr } = go("mod", "download");
  return status === 0 ? undefined : `its modules can't be fetched: ${stderr.trim().split("\n").at(-1)}`;
}

/** Generates the contracts for Go and builds the examples into a folder. @throws Error with the compiler's words. */
export async function buildGoExamples(into: string): Promise<void> {
  const run = promisify(execFile);
  await run(process.execPath, [path.join(root, "scripts/generate-go.ts")], { cwd: root, env, timeout });
  await run("go", ["vet", "./..."], { cwd: module, env, timeout });
  await run("go", ["build", "-o", into, "./cmd/..."], { cwd: module, env, timeout });
}

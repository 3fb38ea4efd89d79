/**
 * Compares the contracts with those of an earlier revision: `LICET_BASE_REVISION`, else where this branch left
 * origin/main, else the last commit (with uncommitted changes of proto/) or the one before it.
 * The earlier files are unpacked and built first: comparing with `.git#ref` fails, as node_modules is absent there.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { thirdPartyProtos } from "./third-party-protos.ts";

const root = path.resolve(import.meta.dirname, "..");
const scratch = path.join(root, "node_modules/.base-protos");

const base = baseRevision();
if (base === undefined || git("ls-tree", "--name-only", base, "proto") !== "proto") {
  console.log(`not compared: ${base === undefined ? "there is no earlier revision" : `${base} has no proto folder`}`);
} else {
  unpack(base);
  execFileSync("buf", ["build", "proto", "--output", "base.binpb"], { cwd: scratch, stdio: "inherit" });
  const against = path.join(scratch, "base.binpb");
  const { status } = spawnSync("buf", ["breaking", "proto", "--against", against], { cwd: root, stdio: "inherit" });
  console.log(`${status === 0 ? "compatible" : "NOT compatible"} with ${base}`);
  process.exitCode = status ?? 1;
}

function baseRevision(): string | undefined {
  const named = process.env.LICET_BASE_REVISION;
  if (named !== undefined && named !== "") return git("rev-parse", "--verify", `${named}^{commit}`) ?? fail(named);
  const head = git("rev-parse", "--verify", "HEAD");
  if (head === undefined) return undefined;
  const left = git("merge-base", "HEAD", "origin/main");
  if (left !== undefined && left !== head) return left;
  return git("status", "--porcelain", "proto") === "" ? git("rev-parse", "--verify", "HEAD~1") : head;
}

function fail(revision: string): never {
  throw new Error(`LICET_BASE_REVISION names no commit of this repository: ${revision}`);
}

function unpack(revision: string): void {
  rmSync(scratch, { recursive: true, force: true });
  mkdirSync(scratch, { recursive: true });
  const archive = execFileSync("git", ["archive", "--format=tar", revision, "proto"], {
    cwd: root,
    maxBuffer: 64 * 1024 * 1024,
  });
  execFileSync("tar", ["-x"], { cwd: scratch, input: archive });
  cpSync(path.join(root, "buf.yaml"), path.join(scratch, "buf.yaml"));
  cpSync(thirdPartyProtos, path.join(scratch, "node_modules/.protos"), { recursive: true });
}

/** The trimmed output, or undefined where git refuses (no repository, no such revision). */
function git(...args: string[]): string | undefined {
  try {
    return execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return undefined;
  }
}

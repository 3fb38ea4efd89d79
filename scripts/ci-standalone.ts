/**
 * What CI does with standalone: the start command of the README in a fresh clone, the README's calls with their answers
 * compared by named fields, those of the guides in docs/guides, Ctrl-C, a second start, a start after `kill -9`; then the
 * built and deployed tree.
 *
 * A shell block of README.md or of a guide takes part when a comment stands right above it:
 *   <!-- ci: setup -->                      runs before each call, in the same shell: it sets variables
 *   <!-- ci: {"valid": true, "a.b": 1} -->  a call: these fields of its JSON answer must have these values
 *   <!-- ci within 30 s: {…} -->            a call that shows the effect of an event: it is repeated until they have
 *   <!-- ci: prints -->                     a program: it prints, to the letter, the block that follows
 * Each document has setup blocks of its own. The README's last call is a mutation: repeated after a restart, its `request_id` must bring the same answer again.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { findFreePorts } from "../packages/platform/src/free-ports.ts";

const root = path.resolve(import.meta.dirname, "..");
const pnpm = ["npx", "-y", "pnpm@12.21.0"] as const;
const startCommand = [...pnpm, "start"];
/** The ports that the README's calls name; the ones used here are free ones. */
const readmePorts = { grpc: 9090, web: 8080, metrics: 9464 };
/** Only ends a hanging run: how long a start took is printed and not judged, as CI machines differ. */
const startTimeoutMs = 180_000;
/** The promise of the README. */
const stopTimeoutMs = 5_000;
const callTimeoutMs = 300_000;

interface Standalone {
  readonly child: ChildProcess;
  readonly ports: typeof readmePorts;
}

interface Call {
  readonly command: string;
  /** Values of the JSON answer by their paths, or all that is printed. */
  readonly expected: Readonly<Record<string, unknown>> | string;
  readonly withinMs: number;
}

interface Document {
  readonly setup: string;
  readonly calls: readonly Call[];
}

// As the clone of a new user may lie: below a folder that nobody else may enter.
const scratch = mkdtempSync(path.join(tmpdir(), "licet-ci-"));
const running = new Set<Standalone>();
let checks = 0;
let failed = 0;

try {
  await section("a fresh clone", () => freshClone(path.join(scratch, "clone")));
  await section("the deployed tree", () => deployedTree(path.join(scratch, "deployed")));
} finally {
  for (const standalone of running) await stopStandalone(standalone, "SIGTERM").catch(console.error);
  removeMovedData(path.join(scratch, "clone"));
  rmSync(scratch, { recursive: true, force: true });
}
console.log(`\n${checks} checks, ${failed} failed`);
// Explicitly, because a process that could not be stopped holds a pipe to this one.
process.exit(failed > 0 ? 1 : 0);

async function freshClone(folder: string): Promise<void> {
  execFileSync("git", ["clone", "--quiet", root, folder]);
  const readme = await check("README names the start command and marks calls", () => readReadme(folder));
  const start = (name: string) => check(name, () => startStandalone(startCommand, folder));

  const first = await start("start from a fresh clone");
  let answer: unknown;
  for (const call of readme.calls) {
    answer = await check(`README: ${call.command}`, () => compareCall(readme, call, folder, first.ports));
  }
  for (const file of globSync("docs/guides/*.md", { cwd: folder }).sort()) {
    const guide = readDocument(folder, file);
    for (const call of guide.calls) {
      await check(`${file}: ${call.command}`, () => compareCall(guide, call, folder, first.ports));
    }
  }
  await check(`Ctrl-C ends it in ${stopTimeoutMs} ms`, () => stopStandalone(first, "SIGINT"));

  const foundItsData = ({ ports }: Standalone) => {
    const repeated = JSON.parse(ask(readme, readme.calls.at(-1)?.command ?? "", folder, ports));
    expectEqual("the answer to the same request_id", repeated, answer);
  };
  const second = await start("second start");
  await check("it found its data", () => foundItsData(second));
  await check("kill -9", () => killStandalone(second, folder));

  const third = await start("start after kill -9");
  await check("it found its data again", () => foundItsData(third));
  await check("SIGTERM ends it", () => stopStandalone(third, "SIGTERM"));
}

async function deployedTree(folder: string): Promise<void> {
  const built = `${folder}-built`;
  const [program, ...args] = pnpm;
  await check("pnpm deploy", () => {
    execFileSync(program, [...args, "--filter", "@licet/standalone", "deploy", "--prod", built], { cwd: root });
    // An image copies the tree elsewhere: it must not know where it was made.
    renameSync(built, folder);
  });
  const elsewhere = path.join(scratch, "elsewhere");
  mkdirSync(elsewhere);
  const command = [process.execPath, path.join(folder, "dist/main.js"), "--ephemeral"];
  const standalone = await check("start from JavaScript", () => startStandalone(command, elsewhere));
  await check("SIGTERM ends it", () => stopStandalone(standalone, "SIGTERM"));
}

/** Started by root below a closed folder, Postgres keeps its data elsewhere and leaves a note. */
function removeMovedData(folder: string): void {
  const note = path.join(folder, ".licet/postgres/location");
  if (existsSync(note)) rmSync(readFileSync(note, "utf8").trim(), { recursive: true, force: true });
}

/** Runs one check and counts it; a failure ends the section, as what follows depends on it. */
async function check<T>(name: string, run: () => T | Promise<T>): Promise<T> {
  const startedAt = performance.now();
  const seconds = () => ((performance.now() - startedAt) / 1000).toFixed(1);
  checks += 1;
  try {
    const result = await run();
    console.log(`── ok: ${name} (${seconds()} s)`);
    return result;
  } catch (error) {
    failed += 1;
    console.error(`── FAILED: ${name} (${seconds()} s)`);
    throw error;
  }
}

async function section(name: string, run: () => Promise<void>): Promise<void> {
  console.log(`\n── ${name}`);
  const failedBefore = failed;
  try {
    await run();
  } catch (error) {
    console.error(error);
    // What fails between two checks is a failed check, too.
    if (failed === failedBefore) {
      checks += 1;
      failed += 1;
    }
  }
}

async function startStandalone(command: readonly string[], cwd: string): Promise<Standalone> {
  const [grpc = 0, web = 0, metrics = 0] = await findFreePorts(3);
  const ports = { grpc, web, metrics };
  const flags = Object.entries(ports).flatMap(([name, port]) => [`--${name}-port`, `${port}`]);
  const [program = "", ...args] = command;
  const child = spawn(program, [...args, ...flags], {
    cwd,
    env: userEnvironment(),
    // A group of its own, which a signal reaches as Ctrl-C in a terminal would.
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const standalone = { child, ports };
  running.add(standalone);
  child.once("close", () => running.delete(standalone));
  child.stdout.pipe(process.stdout);
  child.stderr.pipe(process.stderr);
  let output = "";
  child.stdout.on("data", (text) => {
    output += text;
  });
  const timeout = AbortSignal.timeout(startTimeoutMs);
  // It tells its URLs when everything is ready, run.json included.
  while (!output.includes(`:${ports.web}`)) {
    if (child.exitCode !== null) throw new Error(`it ended with exit code ${child.exitCode}`);
    if (timeout.aborted) throw new Error(`it did not serve within ${startTimeoutMs} ms`);
    await delay(100);
  }
  const { status } = await fetch(`http://127.0.0.1:${ports.web}/health`);
  if (status !== 200) throw new Error(`GET /health answers ${status}`);
  return standalone;
}

/**
 * The environment of a user's shell: without what the pnpm that runs this script adds. Its variables would keep the
 * clone's pnpm from installing, and its path holds this checkout's programs.
 */
function userEnvironment(): NodeJS.ProcessEnv {
  const entries = Object.entries(process.env).filter(([name]) => !/^(npm|pnpm)_/i.test(name));
  const folders = (process.env.PATH ?? "").split(path.delimiter).filter((folder) => !folder.includes("node_modules"));
  return { ...Object.fromEntries(entries), PATH: folders.join(path.delimiter) };
}

/** `close` comes when the last process of the group that holds our pipes is gone, not only the first. */
async function stopStandalone({ child }: Standalone, name: "SIGINT" | "SIGTERM"): Promise<void> {
  const closed = once(child, "close").then(() => true);
  signal(child, name);
  const late = delay(stopTimeoutMs, false, { ref: false });
  if (!(await Promise.race([closed, late]))) throw new Error(`it still runs ${stopTimeoutMs} ms after ${name}`);
}

/** Only the serving process: pnpm, its parent, could pass no signal on. Its Postgres lives on. */
async function killStandalone({ child }: Standalone, folder: string): Promise<void> {
  const exited = once(child, "exit");
  process.kill(readPid(folder), "SIGKILL");
  await exited;
}

function signal(child: ChildProcess, name: NodeJS.Signals): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, name);
  } catch (error) {
    // ESRCH: the group is gone already.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function readPid(folder: string): number {
  return JSON.parse(readFileSync(path.join(folder, ".licet/run.json"), "utf8")).pid;
}

function readReadme(folder: string): Document {
  const text = readFileSync(path.join(folder, "README.md"), "utf8");
  if (!text.split("\n").includes(startCommand.join(" "))) throw new Error(`no line "${startCommand.join(" ")}"`);
  const readme = readDocument(folder, "README.md");
  if (readme.calls.length === 0) throw new Error("no block is marked with <!-- ci: {…} -->");
  return readme;
}

function readDocument(folder: string, file: string): Document {
  const text = readFileSync(path.join(folder, file), "utf8");
  const marked = /<!-- ci(?: within (\d+) s)?: (.+?) -->\n+```\w*\n([\s\S]+?)\n```(?:\n+```\n([\s\S]+?)\n```)?/g;
  const blocks = [...text.matchAll(marked)].map(([, seconds = "0", mark = "", command = "", next]) => ({
    withinMs: Number(seconds) * 1000,
    mark,
    command,
    next,
  }));
  const calls = blocks
    .filter(({ mark }) => mark !== "setup")
    .map(({ mark, next, ...call }): Call => {
      if (mark !== "prints") return { ...call, expected: JSON.parse(mark) };
      if (next === undefined) throw new Error(`${file}: no block tells what this prints: ${call.command}`);
      return { ...call, expected: next };
    });
  const setup = blocks.filter(({ mark }) => mark === "setup").map(({ command }) => command);
  return { setup: setup.join("\n"), calls };
}

/** Returns the answer whose fields were as expected. */
async function compareCall(
  document: Document,
  call: Call,
  folder: string,
  ports: Standalone["ports"],
): Promise<unknown> {
  const until = performance.now() + call.withinMs;
  for (;;) {
    const output = ask(document, call.command, folder, ports);
    try {
      return checkedAnswer(output, call.expected);
    } catch (error) {
      if (performance.now() >= until) throw error;
      await delay(100);
    }
  }
}

/** The answer that the output holds, which is the output itself where all of it is expected. */
function checkedAnswer(output: string, expected: Call["expected"]): unknown {
  if (typeof expected === "string") {
    expectEqual("the output", output, expected);
    return output;
  }
  const answer: unknown = JSON.parse(output);
  for (const [field, value] of Object.entries(expected)) expectEqual(field, valueAt(answer, field), value);
  return answer;
}

/** What the command prints, without the blanks around it and at the ends of lines. */
function ask(document: Document, command: string, folder: string, ports: Standalone["ports"]): string {
  const script = (Object.keys(readmePorts) as (keyof typeof readmePorts)[]).reduce(
    (text, name) => text.replaceAll(`:${readmePorts[name]}`, `:${ports[name]}`),
    `${document.setup}\n${command}`,
  );
  const output = execFileSync("bash", ["-euo", "pipefail", "-c", script], {
    cwd: folder,
    env: userEnvironment(),
    encoding: "utf8",
    timeout: callTimeoutMs,
  });
  const printed = output.replace(/[ \t]+$/gm, "").trim();
  console.log(printed);
  return printed;
}

/** The value at a path such as `lines.0.quantity`. */
function valueAt(answer: unknown, field: string): unknown {
  return field
    .split(".")
    .reduce<unknown>((value, name) => (value as Record<string, unknown> | undefined)?.[name], answer);
}

function expectEqual(field: string, actual: unknown, expected: unknown): void {
  if (!isDeepStrictEqual(actual, expected)) {
    throw new Error(`${field} is ${JSON.stringify(actual)} and should be ${JSON.stringify(expected)}`);
  }
}

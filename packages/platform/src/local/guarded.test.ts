import { execFile } from "node:child_process";
import { randomInt } from "node:crypto";
import { promisify } from "node:util";
import { expect, test } from "@jest/globals";
import { findProcesses, killProcesses } from "../processes.ts";
import { startProgram } from "../testing/child.ts";
import { until } from "../testing/until.ts";
import { runGuarded, startGuarded } from "./guarded.ts";

/** A command line that no other process has. */
const sleeping = () => ["sleep", String(randomInt(1_000_000, 2_000_000_000))];
const running = (command: readonly string[]) => findProcesses((line) => line === command.join(" "));

const isAlive = (pid: number) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

test("a program ends when the process that started it is killed", async () => {
  const starter = await startProgram("hold-guarded.ts");
  const pid = Number(starter.line);
  expect(isAlive(pid)).toBe(true);
  await starter.kill();
  await until("the program has ended", () => !isAlive(pid));
});

test("a program is ended by SIGTERM, or by SIGKILL when it takes too long, and leaves no guard", async () => {
  const command = sleeping();
  const willing = await startGuarded(command);
  await willing.stop(60_000);
  expect(await willing.ended).toBe(128 + 15);
  const deaf = await startGuarded(["sh", "-c", `trap '' TERM; exec ${command.join(" ")}`]);
  await until("it sleeps", async () => (await running(command)).length === 1);
  await deaf.stop(50);
  expect(await deaf.ended).toBe(128 + 9);
  expect(await findProcesses((line) => line.includes(command.join(" ")))).toEqual([]);
  await willing.stop(0);
});

/** Starts a program and ends it, and prints the timers that then keep the process alive. */
const ending = `
  import { startGuarded } from ${JSON.stringify(new URL("guarded.ts", import.meta.url).href)};
  const program = await startGuarded(["sleep", "600"]);
  await program.stop(60_000);
  console.log(process.getActiveResourcesInfo().filter((what) => what === "Timeout").length);
`;

test("once a program has ended, no timer keeps the process that started it", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", ending]);
  expect(stdout).toBe("0\n");
});

test("what was left behind is found by its command line and ended", async () => {
  const command = sleeping();
  const program = await startGuarded(command);
  // Its guard tells the process id before the process has become the program.
  await until("it sleeps", async () => (await running(command)).includes(program.pid));
  await killProcesses((line) => line === command.join(" "));
  expect(await program.ended).toBe(128 + 9);
});

test("a run that fails says what the program said; one that is aborted ends the program", async () => {
  const failing = runGuarded(["sh", "-c", "echo it is broken; exit 3"], {});
  await expect(failing).rejects.toThrow(/exit code 3:\nit is broken/);
  await expect(runGuarded(["/no/such/program"], {})).rejects.toThrow(/exit code 127/);
  const command = sleeping();
  const giveUp = new AbortController();
  const aborted = expect(runGuarded(command, { signal: giveUp.signal })).rejects.toThrow("not wanted");
  await until("it runs", async () => (await running(command)).length === 1);
  giveUp.abort(new Error("not wanted"));
  await aborted;
  expect(await running(command)).toEqual([]);
});

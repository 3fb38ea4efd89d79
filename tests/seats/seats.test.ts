import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, test } from "@jest/globals";
import { testServerUrl } from "@licet/platform/testing/database";
import { planted } from "./planted.ts";
import type { Report } from "./run.ts";

const main = fileURLToPath(new URL("main.ts", import.meta.url));
/** Rounds in CI. `LICET_SEAT_ROUNDS=10000` is the full proof, which takes hours on two cores. */
const rounds = Number(process.env.LICET_SEAT_ROUNDS ?? 40);
const seed = Number(process.env.LICET_SEED ?? Math.floor(Math.random() * 1_000_000));
/** Rounds within which a planted bug must be found. Mostly the first few do; how many is chance, as who meets whom is. */
const MAX_ROUNDS_TO_FIND = 200;

async function run(...flags: string[]): Promise<{ code: number | null; report: Report }> {
  const args = ["-C", "licet-src", main, "--callers", "50", "--seed", `${seed}`, ...flags];
  const env = { ...process.env, LICET_TEST_DATABASE_URL: testServerUrl(), NODE_OPTIONS: "" };
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  const [code] = (await once(child, "close")) as [number | null];
  process.stdout.write(`seats: ${output.trimEnd()}\n`);
  return { code, report: JSON.parse(output.trimEnd().split("\n").at(-1) ?? "") as Report };
}

test(
  `50 callers never get more seats than there are (${rounds} rounds)`,
  async () => {
    const { code, report } = await run("--rounds", `${rounds}`);
    expect(report).toMatchObject({ rounds, overAllocations: 0, findings: [] });
    expect(code).toBe(0);
    // All of it was tried; few rounds may do without a seldom thing.
    for (const what of ["activated", "denied", "deactivated", "heard", "resized", "repeated", "jumps"] as const) {
      expect([what, report[what] > 0]).toEqual([what, true]);
    }
  },
  240_000 + rounds * 5_000,
);

test.each(Object.keys(planted))("the planted bug %s is found", async (name) => {
  const { code, report } = await run("--rounds", `${MAX_ROUNDS_TO_FIND}`, "--plant", name);
  expect(report.overAllocations).toBeGreaterThan(0);
  expect(code).toBe(1);
});

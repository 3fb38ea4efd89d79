/**
 * `pnpm prove`: the long proof. Half an hour of chaos over several seeds, hostile clients, and every control, which must be
 * caught. Takes about an hour and a half; prints what held, with the seeds. See docs/reliability.md for what it shows.
 */
import { spawnSync } from "node:child_process";
import { performance } from "node:perf_hooks";
import { plantedBugs } from "../tests/chaos/planted.ts";

const CHAOS_RUNS = 6;
const CHAOS_MINUTES = 5;

const firstSeed = Number(process.argv[2] ?? Math.floor(Math.random() * 1_000_000));
const chaos = Array.from({ length: CHAOS_RUNS }, (_, index) => {
  return ["chaos", "--seed", String(firstSeed + index), "--minutes", String(CHAOS_MINUTES)];
});
const controls = Object.keys(plantedBugs).map((name) => ["chaos", "--seed", String(firstSeed), "--control", name]);
const steps = [...chaos, ["fuzz", "--seed", String(firstSeed), "--seconds", "600"], ...controls];

const failed = steps.filter((step) => {
  console.log(`\n── pnpm ${step.join(" ")}`);
  const startedAt = performance.now();
  const { status } = spawnSync("pnpm", step, { stdio: "inherit" });
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
  console.log(`── pnpm ${step.join(" ")}: ${status === 0 ? "ok" : "FAILED"} (${seconds} s)`);
  return status !== 0;
});

console.log(`\n${steps.length} checks, ${failed.length} failed`);
for (const step of failed) console.log(`  failed: pnpm ${step.join(" ")}`);
if (failed.length > 0) process.exitCode = 1;

import { readFileSync } from "node:fs";
import { expect, test } from "@jest/globals";
import { cuts, http2Attacks } from "./http2-attacks.ts";
import { attacks, runFuzz } from "./run.ts";

const log = () => {};

test("a process under every attack lives, stays within its bounds and answers as documented", async () => {
  const report = await runFuzz({ seed: 20_260_101, seconds: 1, lenient: true, log });
  const { attacks: outcomes, canary, quiet, rssBefore, rssPeak, rssAfter, handlers } = report;
  process.stdout.write(`fuzz: ${JSON.stringify({ canary, quiet, rssBefore, rssPeak, rssAfter, handlers })}\n`);
  expect(report.findings).toEqual([]);
  expect(outcomes.map(({ name }) => name)).toEqual(attacks.map(({ name }) => name));
  expect(outcomes.filter(({ acts }) => acts === 0)).toEqual([]);
  // Floods don't wait for their answers; calls do.
  const floods = http2Attacks.map(({ name }) => name);
  const calls = outcomes.filter(({ name }) => !floods.includes(name));
  expect(calls.filter(({ answers }) => Object.keys(answers).length === 0)).toEqual([]);
}, 900_000);

test("bugs that are planted are found", async () => {
  const bugs = ["slot freed on cancel", "transactions wait without a limit", "decoder's errors unhandled"];
  const only = ["rapid-reset", "mutated-protobufs"];
  const { findings } = await runFuzz({ seed: 1, seconds: 4, only, lenient: true, bugs, log });
  expect(findings).toContainEqual(
    expect.stringMatching(/^handlers: \d+ of licet.licensing.v1 unary calls ran at once/),
  );
  expect(findings).toContainEqual(expect.stringMatching(/^mutated-protobufs: grpc INTERNAL is not documented/));
}, 900_000);

test("the docs tell of each attack and of every answer to it", () => {
  const docs = readFileSync(new URL("../../docs/reliability.md", import.meta.url), "utf8");
  for (const { name, about, answers } of attacks) {
    const row = docs.split("\n").find((line) => line.startsWith(`| ${name} |`));
    expect(row).toBe(`| ${name} | ${about} | ${summary(answers)} |`);
  }
});

/** Answers as the table of the docs has them: `grpc OK, NOT_FOUND; http 200`. */
function summary(answers: readonly string[]): string {
  const ends = cuts.every((cut) => answers.includes(cut));
  const byKind = new Map<string, string[]>();
  for (const answer of answers.filter((each) => !ends || !cuts.includes(each))) {
    const [kind = "", code] = answer.split(" ");
    byKind.set(kind, [...(byKind.get(kind) ?? []), ...(code === undefined ? [] : [code])]);
  }
  const kinds = [...byKind].map(([kind, codes]) => [kind, codes.join(", ")].join(" ").trim());
  return [...(ends ? ["the connection ends"] : []), ...kinds].join("; ");
}

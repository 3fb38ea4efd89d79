/** `licet import`, `export` and `bulk` as processes, against a whole Licet. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { startLicet, type TestLicet } from "./licet.ts";

const program = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), "licet-bulk-"));
let licet: TestLicet;

beforeAll(async () => {
  licet = await startLicet({ seed: true });
});
afterAll(async () => {
  await licet.stop();
  rmSync(folder, { recursive: true, force: true });
});

function start(tenant: string, args: readonly string[]) {
  const key = licet.run.apiKeys[tenant]?.admin ?? "";
  return spawn(process.execPath, ["-C", "licet-src", program, ...args], {
    cwd: folder,
    env: { ...process.env, LICET_API_KEY: key, LICET_GRPC_URL: licet.run.grpcUrl },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

async function run(tenant: string, ...args: string[]) {
  const child = start(tenant, args);
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  return { code, stdout, stderr };
}

/** A file in the folder where the commands run. */
function file(name: string, content: string): string {
  writeFileSync(path.join(folder, name), content);
  return name;
}

function expectFits(output: string): void {
  for (const line of output.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
}

test("import: the exit code tells of failed rows, the same file again is the same import", async () => {
  const name = file("some.csv", `customer_id,name,email\na,A,\nb,B,${"x".repeat(90)}\nc,C,c@x.example\n`);
  const first = await run("rankmath", "import", "customers", name, "--errors", "errors.jsonl");
  expect(first).toMatchObject({ code: 1, stdout: expect.stringContaining("3 customers: 2 created, 1 failed.") });
  expect(first.stdout).toContain("line 3: email");
  expectFits(first.stdout);
  const errors = readFileSync(path.join(folder, "errors.jsonl"), "utf8");
  expect(JSON.parse(errors)).toMatchObject({ line: 3, field: "email", reason: "INVALID_FIELD" });
  const again = await run("rankmath", "import", "customers", name);
  expect(again).toMatchObject({ code: 1, stdout: expect.stringContaining("was taken in before") });
  const skipping = await run("rankmath", "import", "customers", name, "--on-existing", "skip", "--dry-run");
  expect(skipping.stdout).toMatch(/0 created, 2 skipped, 1 failed \(a dry run/);
  const good = await run("rankmath", "import", "customers", file("good.jsonl", '{"customer_id":"d","name":"D"}\n'));
  expect(good).toMatchObject({ code: 0 });
});

test("import: Ctrl-C stops between two chunks, and the same command goes on", async () => {
  const name = "many.csv";
  const interrupted = async (round: number) => {
    const names = Array.from({ length: 12_000 }, (_, index) => `${"Some Organisation ".repeat(5)}${index}`);
    file(name, `customer_id,name\n${names.map((each, index) => `x-${round}-${index},${each}`).join("\n")}\n`);
    const child = start("wprocket", ["import", "customers", name]);
    const output = Promise.all([text(child.stdout), once(child, "close")]);
    await once(child.stderr, "data");
    child.kill("SIGINT");
    const [stdout, [code]] = await output;
    return [code, stdout];
  };
  let ended = await interrupted(1);
  // On a busy machine an import can be done before the signal comes.
  for (let round = 2; ended[0] === 0 && round <= 3; round++) ended = await interrupted(round);
  expect(ended).toEqual([130, expect.stringContaining("goes on from here")]);
  const done = await run("wprocket", "import", "customers", name);
  expect(done).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("12,000 customers: 12,000 created, 0 failed."),
  });
  expectFits(`${done.stdout}${done.stderr}`);
});

test("export: to a file, to the standard output, on from where it was cut off", async () => {
  const whole = await run("rankmath", "export", "customers", "--format", "csv");
  expect(whole.stdout).toMatch(/^customer_id,name,email,domain,industry,employee_count,created_at\r\na,A,,,,,/);
  expect(await run("rankmath", "export", "customers", "--out", "out.csv")).toMatchObject({ code: 0 });
  expect(readFileSync(path.join(folder, "out.csv"), "utf8")).toBe(whole.stdout);
  expect(existsSync(path.join(folder, "out.csv.part"))).toBe(false);
  // As a run leaves it that died behind a write and before its note.
  const child = start("wprocket", ["export", "customers", "--out", "many.csv"]);
  const closed = once(child, "close");
  await once(child.stderr, "data");
  child.kill("SIGKILL");
  await closed;
  if (existsSync(path.join(folder, "many.csv.part")))
    writeFileSync(path.join(folder, "many.csv.part"), "torn", { flag: "a" });
  expect(await run("wprocket", "export", "customers", "--out", "many.csv")).toMatchObject({ code: 0 });
  const all = await run("wprocket", "export", "customers", "--format", "csv");
  expect(readFileSync(path.join(folder, "many.csv"), "utf8")).toBe(all.stdout);
});

test("bulk: a dry run lists what would change, a run changes it, what fails is told", async () => {
  const selection = ["--product", "trading", "--plan", "standard"];
  const migrate = ["bulk", "migrate", ...selection, "--to-plan", "enterprise"];
  const dry = await run("tradsys", ...migrate, "--dry-run");
  expect(dry.stdout).toMatch(/would be migrated/);
  expect(dry.stdout).toMatch(/plan standard 1 → enterprise 1\n/);
  expect(dry.stdout).toMatch(/price USD 25000\.00 a year → USD 50000\.00 a year/);
  expect(dry.stdout).toMatch(/features - basic_trading/);
  expectFits(dry.stdout);
  const suspended = await run("tradsys", "bulk", "suspend", ...selection, "--status", "active", "--reason", "audit");
  expect(suspended).toMatchObject({ code: 0, stdout: expect.stringMatching(/1 suspended, .*0 failed/) });
  const again = await run("tradsys", "bulk", "suspend", ...selection);
  expect(again).toMatchObject({ code: 1, stdout: expect.stringContaining("is suspended and can only") });
  const id = /Operation (\S+)/.exec(again.stderr)?.[1] ?? "";
  expect(await run("tradsys", "bulk", "watch", id)).toMatchObject({ code: 1, stdout: again.stdout });
  expect((await run("tradsys", "bulk", "results", id)).stdout).toContain("is suspended and can only");
});

test.each<[string, string[], string]>([
  ["no file", ["import", "customers"], "which file?"],
  ["a file that is not there", ["import", "customers", "none.csv"], "no such file"],
  ["no such kind", ["import", "people", "some.csv"], '"people" should be customers, licenses'],
  ["no format", ["import", "customers", "some.txt"], "--format is missing"],
  ["no plan", ["bulk", "migrate", "--product", "trading"], "--to-plan is missing"],
  ["an unknown flag", ["export", "customers", "--fast"], "Unknown option"],
  ["no selection", ["bulk", "suspend"], "selection: must not be empty"],
])("%s is told in one sentence", async (_name, args, sentence) => {
  const { code, stderr } = await run("rankmath", ...args);
  expect([code, stderr]).toEqual([1, expect.stringContaining(sentence)]);
  expect(stderr.trim().split("\n")).toHaveLength(1);
});

/**
 * Prints docs/reference/decision-reasons.md and error-reasons.md from the comments of the contracts. `--verify` compares
 * instead, and fails when a file is not what would be printed.
 */
import { existsSync, globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "..");
const folder = "docs/reference";

/** A value of an enum; its comment in paragraphs, each on one line. */
interface Value {
  readonly name: string;
  readonly number: string;
  readonly paragraphs: readonly string[];
}

interface Enum {
  readonly paragraphs: readonly string[];
  /** Without the one that is not used. */
  readonly values: readonly Value[];
}

const pages: readonly [string, string][] = [
  ["decision-reasons.md", decisionReasons()],
  ["error-reasons.md", errorReasons()],
];
for (const [name, text] of pages) {
  const file = path.join(root, folder, name);
  if (!process.argv.includes("--verify")) {
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  } else if (!existsSync(file) || readFileSync(file, "utf8") !== text) {
    process.stderr.write(`${folder}/${name} is not what the contracts say: run \`pnpm generate:reasons\`\n`);
    process.exitCode = 1;
  }
}

function decisionReasons(): string {
  const file = "proto/licet/validation/v1/validation_service.proto";
  const { paragraphs, values } = readEnum(file, "DecisionReason");
  return page("Reasons of a decision", file, [
    ...paragraphs,
    "Errors are no decisions: their reasons are on [a page of their own](error-reasons.md). How limits are compared is in [the guide](../guides/limits.md).",
    ["| reason | number | |", "|---|---|---|", ...values.map(decisionRow)].join("\n"),
    ...values.map(decisionSection),
  ]);
}

function decisionRow({ name, number, paragraphs: [meaning = ""] }: Value): string {
  return `| [\`${name}\`](#${name.toLowerCase()}) | ${number} | ${meaning} |`;
}

function decisionSection({ name, number, paragraphs }: Value): string {
  const [meaning = "", ...rest] = paragraphs;
  const told = ["What to do", "Refers to"].map((label) => {
    const text = rest.find((paragraph) => paragraph.startsWith(`${label}: `));
    if (text === undefined) throw new Error(`the comment of DECISION_REASON_${name} has no paragraph "${label}: …"`);
    const [, first = "", others = ""] = /^[^:]+: (.)(.*)$/.exec(text) ?? [];
    return `**${label}.** ${first.toUpperCase()}${others}`;
  });
  return [`## ${name}`, `\`DECISION_REASON_${name}\`, ${number}. ${meaning}`, ...told].join("\n\n");
}

function errorReasons(): string {
  const files = globSync("proto/licet/*/v1/error_reason.proto", { cwd: root }).sort();
  const areas = files.map((file) => {
    const isPlatform = file.includes("/type/");
    const { values } = readEnum(file, isPlatform ? "PlatformErrorReason" : "ErrorReason");
    const title = isPlatform ? "## Any RPC" : `## ${path.basename(path.dirname(path.dirname(file)))}`;
    return [title, ["| reason | code | meaning |", "|---|---|---|", ...values.map(errorRow)].join("\n")].join("\n\n");
  });
  return page("Reasons of errors", "proto/licet/*/v1/error_reason.proto", [
    "What a call that failed says in `google.rpc.ErrorInfo.reason`, domain `licet.dev`. Test the reason, never the text. A denial is no failure: its reasons are on [a page of their own](decision-reasons.md).",
    ...areas.sort((a, b) => Number(b.startsWith("## Any")) - Number(a.startsWith("## Any"))),
  ]);
}

function errorRow({ name, paragraphs }: Value): string {
  const [, code, meaning] = /^([A-Z_]+): (.+)$/.exec(paragraphs.join(" ")) ?? [];
  if (code === undefined || meaning === undefined)
    throw new Error(`the comment of ${name} does not begin with "CODE: "`);
  return `| \`${name}\` | ${code} | ${meaning.charAt(0).toUpperCase()}${meaning.slice(1)} |`;
}

function page(title: string, source: string, paragraphs: readonly string[]): string {
  const origin = `Printed by \`pnpm generate:reasons\` from the comments of \`${source}\`; don't edit it here.`;
  return `${[`# ${title}`, origin, ...paragraphs].join("\n\n")}\n`;
}

/** Reads an enum of a file in the form that `buf format` gives it. Values are told without the enum's prefix. */
function readEnum(file: string, name: string): Enum {
  const text = readFileSync(path.join(root, file), "utf8");
  const [, comment = "", body] = new RegExp(`((?:^//.*\\n)*)^enum ${name} \\{\\n([^}]*)^\\}`, "m").exec(text) ?? [];
  if (body === undefined) throw new Error(`${file} has no enum ${name}`);
  const prefix = `${name.replace(/(?<=.)([A-Z])/g, "_$1").toUpperCase()}_`;
  const values = [...body.matchAll(/((?:^ *\/\/.*\n)*)^ *([A-Z0-9_]+) = (\d+);$/gm)].map(
    ([, own = "", full = "", number = ""]) => ({ name: full.replace(prefix, ""), number, paragraphs: unwrap(own) }),
  );
  return { paragraphs: unwrap(comment), values: values.filter(({ number }) => number !== "0") };
}

/** The paragraphs of a comment, each on one line. */
function unwrap(comment: string): string[] {
  return comment
    .split("\n")
    .map((line) => line.replace(/^ *\/\/ ?/, ""))
    .join("\n")
    .trim()
    .split(/\n\n+/)
    .map((paragraph) => paragraph.replaceAll("\n", " "));
}

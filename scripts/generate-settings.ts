/**
 * Prints docs/settings.md from the rules by which the programs read their settings. `--verify` compares instead, and
 * fails when the file is not what would be printed.
 */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { settingsReference } from "../packages/cli/src/settings-reference.ts";

const file = path.resolve(import.meta.dirname, "../docs/settings.md");
const text = settingsReference();
if (process.argv.includes("--verify")) {
  if (readFileSync(file, "utf8") !== text) {
    process.stderr.write("docs/settings.md is not what the settings say: run `pnpm generate:settings`\n");
    process.exitCode = 1;
  }
} else {
  writeFileSync(file, text);
}

import { readFileSync } from "node:fs";
import path from "node:path";

const guides = path.resolve(import.meta.dirname, "../../../../docs/guides");

/**
 * The rows of the first table below a heading of a guide, without the backticks of the cells: for tests that hold code to
 * what its guide says.
 *
 * @param guide its file in `docs/guides`
 * @param heading with its number signs
 * @throws {Error} when there is no such heading, or no table below it.
 */
export function tableOf(guide: string, heading: string): readonly (readonly string[])[] {
  const [, , ...rows] = find(guide, heading, /(?:^\|.*\|\n)+/m)
    .trimEnd()
    .split("\n");
  return rows.map((row) =>
    row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll("`", "")),
  );
}

/** The first block below a heading of a guide that is of no language: what a program prints. As {@link tableOf}. */
export function outputOf(guide: string, heading: string): string {
  return find(guide, heading, /(?<=^```\n\n```\n)[^`]*(?=```$)/m);
}

function find(guide: string, heading: string, pattern: RegExp): string {
  const section = readFileSync(path.join(guides, guide), "utf8").split(`\n${heading}\n`)[1]?.split("\n## ")[0];
  const found = pattern.exec(section ?? "")?.[0];
  if (found === undefined) throw new Error(`${guide} has nothing like ${pattern} below ${JSON.stringify(heading)}`);
  return found;
}

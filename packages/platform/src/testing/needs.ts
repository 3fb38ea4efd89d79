import { describe, test } from "@jest/globals";
import { isRequired, type Need } from "./require.ts";

/**
 * Whether cases must be left out because what they need is missing. Says so on the terminal, as Jest prints the names of
 * skipped cases only for a single suite.
 *
 * @param missing - why it can't be had; undefined when it is there
 * @throws Error when `LICET_REQUIRE` names the need
 */
export function skippedFor(need: Need, missing: string | undefined, name: string): missing is string {
  if (missing === undefined) return false;
  if (isRequired(need)) throw new Error(`LICET_REQUIRE names ${need}, but ${missing}`);
  process.stdout.write(`skipped: ${name} (${missing})\n`);
  return true;
}

/** Runs cases that need something; without it they are skipped with its reason, or fail where it is required. */
export function describeWith(need: Need, missing: string | undefined, name: string, cases: () => void): void {
  try {
    (skippedFor(need, missing, name) ? describe.skip : describe)(name, cases);
  } catch (error) {
    test(name, () => {
      throw error;
    });
  }
}

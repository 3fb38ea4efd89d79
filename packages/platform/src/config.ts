import { z } from "zod";

/**
 * What an operator must put right before the process can start. The message
 * lists every problem at once, one a line, and never a value: a value may be
 * a secret.
 */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  /** One entry a setting: its name, what is wrong with it and what would be right. */
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`the configuration is not usable:\n${problems.map((line) => `  ${line}`).join("\n")}`);
    this.problems = problems;
  }
}

/**
 * Reads settings by the rules of `schema`, whose keys are the names of
 * environment variables. A variable set to the empty string counts as absent.
 * A field's `.describe()` is the sentence that says what would be right.
 *
 * @throws {ConfigError} naming every setting that breaks its rule.
 */
export function parseConfig<S extends z.ZodObject>(
  schema: S,
  env: Readonly<Record<string, string | undefined>>,
): z.output<S> {
  const given: Record<string, string> = {};
  for (const name of Object.keys(schema.shape)) {
    const value = env[name];
    if (value !== undefined && value !== "") given[name] = value;
  }
  const result = schema.safeParse(given, { reportInput: false });
  if (result.success) return result.data;
  throw new ConfigError(result.error.issues.map((issue) => describeIssue(schema, given, issue)));
}

function describeIssue(schema: z.ZodObject, given: Readonly<Record<string, string>>, issue: z.core.$ZodIssue): string {
  const name = String(issue.path[0] ?? "(all)");
  const wrong = name in given || issue.path.length === 0 ? issue.message : "is missing";
  const right = z.globalRegistry.get(schema.shape[name] ?? schema)?.description;
  return right === undefined ? `${name}: ${wrong}` : `${name}: ${wrong}; it should be ${right}`;
}

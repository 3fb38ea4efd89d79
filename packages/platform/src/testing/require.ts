/** What cases may need beside Node and Postgres; `LICET_REQUIRE` names those that must be there, divided by commas. */
export type Need = "kafka" | "redis" | "go" | "python";

/** Whether `LICET_REQUIRE` names it. */
export function isRequired(need: Need): boolean {
  return (process.env.LICET_REQUIRE ?? "").split(",").includes(need);
}

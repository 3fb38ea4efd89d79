/** `licet`: what an operator does with a mesh from the outside. */
import { parseArgs } from "node:util";
import { runTenantCommand, type TenantCommand } from "./bulk/command.ts";
import { busSettingsOf } from "./settings.ts";
import { formatRows } from "./table.ts";

const USAGE = `Licet's operator commands.

Usage: licet COMMAND [flags]

  migrate                      create the roles and databases, run all migrations
  topics list                  the topics of the contracts, and what the log has
  topics apply                 create those that the log lacks
  topics check                 the same as list; fails when one is missing or differs
  events replay --from PLACE   publish the history again from an event's id on, or
                               from a time such as 2026-11-22T10:00:00Z
  events redrive --topic NAME  publish the dead letters of a topic again to it
  events accept-log            count usage on from the start of another event log than
                               before, such as a new Kafka
  operator-key                 issue a key that may create tenants, and print it
  import customers|licenses FILE   take a CSV or JSON lines in
  export customers|licenses        write one
  bulk suspend|resume|renew|migrate   change many licenses
                               with --help each of these three says more

Settings come from the environment; docs/settings.md lists them.
`;

/** Commands of a tenant, each with flags of its own. */
const tenantCommands: Readonly<Record<string, () => Promise<TenantCommand>>> = {
  import: async () => (await import("./commands/import.ts")).importCommand,
  export: async () => (await import("./commands/export.ts")).exportCommand,
  bulk: async () => (await import("./commands/bulk.ts")).bulkCommand,
};

try {
  // `pnpm licet -- migrate` passes the dashes on.
  const args = process.argv.slice(2).filter((arg) => arg !== "--");
  const [name = "", ...rest] = args;
  const command = Object.hasOwn(tenantCommands, name) ? tenantCommands[name] : undefined;
  if (command) process.exitCode = await runTenantCommand(await command(), rest);
  else await runOperatorCommand(args);
} catch (error) {
  process.exitCode = 1;
  process.stderr.write(`licet: ${error instanceof Error ? error.message : String(error)}\n`);
}

async function runOperatorCommand(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    options: { from: { type: "string" }, topic: { type: "string" }, help: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  process.stdout.write(values.help ? USAGE : await run(positionals.join(" "), values));
}

/** Runs a command and returns what it has to say. */
async function run(command: string, flags: { readonly from?: string; readonly topic?: string }): Promise<string> {
  const { env } = process;
  switch (command) {
    case "migrate":
      return formatRows(await (await import("./commands/migrate.ts")).migrate(env));
    case "topics list":
      return formatRows((await (await import("./commands/topics.ts")).listTopics(env)).rows);
    case "topics apply":
      return (await import("./commands/topics.ts")).createTopics(busSettingsOf(env));
    case "topics check":
      return formatRows(await (await import("./commands/topics.ts")).checkTopics(env));
    case "events replay":
      return (await import("./commands/replay.ts")).replayEvents(required("--from", flags.from), env);
    case "events redrive":
      return (await import("./commands/redrive.ts")).redrive(required("--topic", flags.topic), env);
    case "events accept-log":
      return (await import("./commands/accept-log.ts")).acceptLog(env);
    case "operator-key":
      return (await import("./commands/operator-key.ts")).issueOperatorKey(env);
    default:
      throw new Error(
        command === ""
          ? "which command? `licet --help` lists them"
          : `there is no command ${JSON.stringify(command)}; \`licet --help\` lists them`,
      );
  }
}

function required(flag: string, value: string | undefined): string {
  if (value === undefined) throw new Error(`${flag} is missing; \`licet --help\` says what it takes`);
  return value;
}

import { settings as billing } from "@licet/billing/config";
import { settings as licensing } from "@licet/licensing/config";
import { processSettings } from "@licet/mesh/settings";
import { environment as standalone } from "@licet/standalone/config";
import { settings as metering } from "@licet/usage-metering/config";
import { settings as validation } from "@licet/validation/config";
import { z } from "zod";

const sections: readonly { title: string; about: string; schema: z.ZodObject; except?: z.ZodObject }[] = [
  {
    title: "Standalone",
    about: "`pnpm start`. Ports, the data folder and the demo data are flags: `pnpm start --help`.",
    schema: standalone,
  },
  {
    title: "Every service of the mesh",
    about:
      "Each service as a process of its own, `services/<name>/src/main.ts`. One of `EVENT_LOG_URL` and `DATABASE_URL` is needed.",
    schema: processSettings,
  },
  {
    title: "Licensing",
    about: "Beside the above. Both `DATABASE_APP_URL` and `DATABASE_SYSTEM_URL` are needed, or `DATABASE_URL`.",
    schema: licensing,
    except: processSettings,
  },
  { title: "Validation", about: "Beside the above.", schema: validation, except: processSettings },
  {
    title: "Usage metering",
    about: "Beside the above. Both `DATABASE_APP_URL` and `DATABASE_SYSTEM_URL` are needed, or `DATABASE_URL`.",
    schema: metering,
    except: processSettings,
  },
  { title: "Billing", about: "Beside the above.", schema: billing, except: processSettings },
];

/** The reference of all settings, as Markdown, printed from the rules by which the programs read them. */
export function settingsReference(): string {
  return [
    "# Settings",
    "",
    "Printed by `pnpm generate:settings` from the rules by which the programs read their environment; don't edit it here.",
    "An empty variable counts as absent. What is wrong is refused at the start, all of it at once.",
    "",
    "`pnpm mesh` sets these for the processes that it starts, and passes on what it finds. `pnpm licet` reads `DATABASE_URL`,",
    "`LICET_DATABASE_PREFIX`, `EVENT_LOG_URL`, `KAFKA_*`, and `DATABASE_APP_URL` and `DATABASE_SYSTEM_URL` (licensing's; usage",
    "metering's for `events accept-log`) as the services do.",
    "",
    ...sections.flatMap(({ title, about, schema, except }) => [
      `## ${title}`,
      "",
      about,
      "",
      "| setting | what it is for | what is right | without it |",
      "|---|---|---|---|",
      ...Object.entries(schema.shape)
        .filter(([name]) => except === undefined || !(name in except.shape))
        .map(([name, field]) => row(name, field as z.ZodType)),
      "",
    ]),
  ].join("\n");
}

function row(name: string, field: z.ZodType): string {
  const { title, description } = z.globalRegistry.get(field) ?? {};
  if (title === undefined || description === undefined) throw new Error(`${name} lacks its title or description`);
  return `| \`${name}\` | ${title} | ${description} | ${withoutIt(field)} |`.replaceAll("\n", " ");
}

/** What holds when the setting is absent, found out by leaving it away. */
function withoutIt(field: z.ZodType): string {
  const read = field.safeParse(undefined);
  if (!read.success) return "needed";
  return read.data === undefined ? "" : `\`${String(read.data)}\``;
}

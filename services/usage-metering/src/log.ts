import { asSystem, openDatabase } from "@licet/platform/database/database";
import type { Context } from "./context.ts";
import { publishAgain } from "./store/levels.ts";
import { changeLog, claimLog } from "./store/offsets.ts";
import type { DB } from "./store/schema.ts";

/** The consumer that counts usage: its group on the bus, and the owner of its offsets. */
export const CONSUMER = "usage-metering";

/** Makes sure that the offsets belong to the log that is read; the first one that is read is theirs. @throws Error when they don't. */
export async function requireLog({ bus, db }: Pick<Context, "bus" | "db">): Promise<void> {
  const id = await bus.id();
  const known = await asSystem(db, (tx) => claimLog(tx, CONSUMER, id));
  if (known === id) return;
  throw new Error(
    `usage was counted from the event log ${known} up to now, and the bus is ${id}: connect it to that log again, or run ` +
      "`licet events accept-log` (for `pnpm mesh`: its flag --accept-log) to count on from the start of this one; events that " +
      "are counted already count once",
  );
}

/**
 * Lets usage be counted from another log on, from its start. What this log repeats of what is counted is known by the
 * events' ids, so it changes nothing.
 *
 * @param url of usage metering's database as the system role.
 * @returns the log that was counted from before; the same one when there was nothing to change.
 */
export async function acceptLog(url: string, id: string): Promise<string> {
  const system = openDatabase<DB>({ url, applicationName: "licet-accept-log", maxConnections: 1 });
  try {
    const db = { app: system, system };
    // How much was used is not in the other log. First, so that it is not forgotten when this ends halfway.
    while (await asSystem(db, publishAgain));
    return await asSystem(db, async (tx) => {
      const known = await claimLog(tx, CONSUMER, id);
      if (known !== id) await changeLog(tx, CONSUMER, id);
      return known;
    });
  } finally {
    await system.destroy();
  }
}

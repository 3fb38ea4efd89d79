import { type Databases, openDatabase } from "@licet/platform/database/database";
import type { Logger } from "@licet/platform/logging";
import { createWindowLimit, type WindowLimit } from "@licet/platform/window-limit";
import { type Config, type PublicCallLimits, publicCallDefaults } from "./config.ts";
import { createKeyCalls, type KeyCalls } from "./key-calls.ts";
import type { DB } from "./store/schema.ts";

/** Connections of each role that all public calls of this process share: apart from those of authenticated calls, which they never keep waiting. */
const MAX_APP_CONNECTIONS = 4;
const MAX_SYSTEM_CONNECTIONS = 2;
/** Addresses whose attempts are told apart in a minute. */
const MAX_ADDRESSES = 100_000;
const MINUTE_MS = 60_000;
/** Heartbeats that the instances of one license key may send to a replica in a minute: of some thousand floating seats. */
const HEARTBEATS_PER_MINUTE = 6_000;
/** Keys whose heartbeats are told apart in a minute. */
const MAX_BEATING_KEYS = 50_000;

/** What the public calls of this process share. */
export interface PublicCalls {
  /** The database on connections of their own. */
  readonly db: Databases<DB>;
  /** The calls that each license key may make; undefined: any number. */
  readonly keyCalls: KeyCalls | undefined;
  /** Attempts with keys that are none, by the network that they come from; undefined: any number. */
  readonly attempts: WindowLimit | undefined;
  /** Heartbeats by the id of the license key; undefined: any number. */
  readonly heartbeats: WindowLimit | undefined;
  start(): void;
  stop(): Promise<void>;
}

/** Creates the shared part of public calls; it connects when the first one comes. */
export function createPublicCalls(config: Config, now: () => Date, logger: Logger): PublicCalls {
  const { perKeyAndDay, attemptsPerMinute }: PublicCallLimits = config.publicCalls ?? publicCallDefaults;
  const open = (url: string, maxConnections: number) =>
    openDatabase<DB>({ url, applicationName: "licet-licensing-public", maxConnections });
  const db: Databases<DB> = {
    app: open(config.database.appUrl, MAX_APP_CONNECTIONS),
    system: open(config.database.systemUrl, MAX_SYSTEM_CONNECTIONS),
  };
  const keyCalls = perKeyAndDay === 0 ? undefined : createKeyCalls({ db, limit: perKeyAndDay, now, logger });
  const attempts =
    attemptsPerMinute === 0
      ? undefined
      : createWindowLimit({
          max: attemptsPerMinute,
          windowMs: MINUTE_MS,
          maxCallers: MAX_ADDRESSES,
          now: () => now().getTime(),
        });
  const heartbeats =
    perKeyAndDay === 0
      ? undefined
      : createWindowLimit({
          max: HEARTBEATS_PER_MINUTE,
          windowMs: MINUTE_MS,
          maxCallers: MAX_BEATING_KEYS,
          now: () => now().getTime(),
        });
  return {
    db,
    keyCalls,
    attempts,
    heartbeats,
    start: () => keyCalls?.start(),
    async stop() {
      await keyCalls?.stop();
      await db.app.destroy();
      await db.system.destroy();
    },
  };
}

import type { KeyedHash, Vault } from "@licet/platform/crypto";
import type { Databases } from "@licet/platform/database/database";
import type { Logger } from "@licet/platform/logging";
import type { MessageRules } from "@licet/platform/rpc/message-rules";
import type { Kysely } from "kysely";
import type { KnownKeys } from "./known-keys.ts";
import type { PublicCalls } from "./public-calls.ts";
import type { DB } from "./store/schema.ts";
import type { LeaseClock } from "./store/seats.ts";
import type { Subscriptions } from "./subscriptions.ts";

/** What handlers and workers need. */
export interface Context {
  readonly db: Databases<DB>;
  /** Encrypts stored secrets: replies that hold one, license keys, private signing keys. */
  readonly vault: Vault;
  /** Finds license keys. */
  readonly keyHash: KeyedHash;
  readonly knownKeys: KnownKeys;
  /** Names the installation in what it signs. */
  readonly issuer: string;
  readonly now: () => Date;
  /** The time by which the scheduler goes: the database's, which all replicas share. */
  readonly databaseNow: (db: Kysely<DB>) => Promise<Date>;
  /** The same time as SQL, for leases. */
  readonly leaseClock: () => LeaseClock;
  /** A new UUIDv7. */
  readonly newId: () => string;
  /** Hints the relay that something was committed. */
  readonly wakeRelay: () => void;
  /** The contracts' rules, for what comes otherwise than as a request: the rows of a file. */
  readonly rules: MessageRules;
  readonly logger: Logger;
  /** What subscribers of the history share. */
  readonly subscriptions: Subscriptions;
  /** What calls of installed products share. */
  readonly publicCalls: PublicCalls;
}

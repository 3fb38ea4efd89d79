import { PLATFORM_TENANT } from "@licet/platform/credentials";
import { createKeyedHash, createVault } from "@licet/platform/crypto";
import { type Databases, inTenant, openDatabase } from "@licet/platform/database/database";
import type { EventBus } from "@licet/platform/events/bus";
import { createRelay } from "@licet/platform/events/outbox";
import { newId } from "@licet/platform/ids";
import type { Logger } from "@licet/platform/logging";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { createMessageRules } from "@licet/platform/rpc/message-rules";
import { sql } from "kysely";
import { type Config, DEFAULT_ISSUER } from "./config.ts";
import type { Context } from "./context.ts";
import { heartbeatTopics, toRecords } from "./events.ts";
import { recordCredentialChange } from "./history.ts";
import { createKnownKeys } from "./known-keys.ts";
import { createPublicCalls } from "./public-calls.ts";
import { bindServices } from "./rpc/index.ts";
import { jwkSet } from "./signatures.ts";
import { publishedKeys } from "./signing-keys.ts";
import type { DB } from "./store/schema.ts";
import { findApiKey, insertApiKey } from "./store/tenants.ts";
import { databaseTime, statementTime } from "./store/time.ts";
import { createSubscriptions } from "./subscriptions.ts";
import { createBulkWorker } from "./workers/bulk.ts";
import { createPurge } from "./workers/purge.ts";
import { createScheduler } from "./workers/scheduler.ts";

/** What licensing is given by the process that it runs in; time and ids have working defaults. */
export interface Dependencies {
  readonly bus: EventBus;
  readonly logger: Logger;
  readonly now?: () => Date;
  /** The time by which the scheduler and leases go instead of the database's: tests move it. */
  readonly schedulerNow?: () => Date;
  readonly newId?: () => string;
}

/** The licensing service: system of record of tenants, catalogue, customers and licenses. */
export interface Licensing {
  readonly bindings: readonly ServiceBinding[];
  /** JSON for everyone on the web port, by path: the public signing keys. */
  readonly documents: Readonly<Record<string, () => Promise<unknown>>>;
  /** Starts to publish the history. */
  start(): void;
  /** Resolves when everything that was committed before the call is published. */
  drain(): Promise<void>;
  /** Resolves when everything that is due by now was done to licenses and told. */
  settle(): Promise<void>;
  /** Resolves when all bulk operations that run are carried out. */
  finishBulk(): Promise<void>;
  /** Whether it serves. */
  ready(): boolean;
  /**
   * Stores the key by which the operator creates tenants, unless it is there. The caller made the key and keeps its
   * secret; see `generateApiKey` of the platform.
   */
  ensureOperatorKey(key: { keyId: string; secretHash: Uint8Array }): Promise<void>;
  stop(): Promise<void>;
}

/** Creates the licensing service on a migrated database. */
export function createLicensing(config: Config, dependencies: Dependencies): Licensing {
  const { bus, logger, schedulerNow } = dependencies;
  const { database, maxConnections } = config;
  const db: Databases<DB> = {
    app: openDatabase({ url: database.appUrl, applicationName: "licet-licensing", maxConnections }),
    system: openDatabase({ url: database.systemUrl, applicationName: "licet-licensing-system", maxConnections: 4 }),
  };
  const relay = createRelay({ url: database.systemUrl, bus, toRecords, heartbeatTopics, logger });
  const subscriptions = createSubscriptions(config, db.system, logger);
  const now = dependencies.now ?? (() => new Date());
  const publicCalls = createPublicCalls(config, now, logger);
  const ctx: Context = {
    db,
    vault: createVault(config.masterKeys, config.currentMasterKey),
    keyHash: createKeyedHash(config.masterKeys, config.currentMasterKey, "license key"),
    knownKeys: createKnownKeys(),
    issuer: config.issuer ?? DEFAULT_ISSUER,
    now,
    databaseNow: schedulerNow ? async () => schedulerNow() : databaseTime,
    leaseClock: schedulerNow ? () => sql<Date>`${schedulerNow()}::timestamptz` : () => statementTime,
    newId: dependencies.newId ?? newId,
    wakeRelay: () => relay.wake(),
    rules: createMessageRules(),
    logger,
    subscriptions,
    publicCalls,
  };
  const purge = createPurge(db, now, logger);
  const scheduler = createScheduler(ctx, database.systemUrl, logger);
  const bulk = createBulkWorker(ctx, database.systemUrl, logger);
  let started = false;

  return {
    bindings: bindServices(ctx),
    documents: { "/.well-known/jwks.json": async () => jwkSet(await publishedKeys(ctx)) },
    start() {
      relay.start();
      purge.start();
      publicCalls.start();
      scheduler.start();
      bulk.start();
      started = true;
    },
    drain: () => relay.drain(),
    settle: () => scheduler.drain(),
    finishBulk: () => bulk.drain(),
    ready: () => started,
    ensureOperatorKey: (key) => ensureOperatorKey(ctx, key),
    async stop() {
      started = false;
      await subscriptions.stop();
      await bulk.stop();
      await publicCalls.stop();
      await scheduler.stop();
      await purge.stop();
      await relay.stop();
      await db.app.destroy();
      await db.system.destroy();
    },
  };
}

function ensureOperatorKey(ctx: Context, key: { keyId: string; secretHash: Uint8Array }): Promise<void> {
  return inTenant(ctx.db, PLATFORM_TENANT, async (tx) => {
    if (await findApiKey(tx, key.keyId)) return;
    const apiKey = {
      ...key,
      tenantId: PLATFORM_TENANT,
      name: "operator",
      role: "operator",
      version: 1n,
      createdAt: ctx.now(),
    } as const;
    await insertApiKey(tx, apiKey);
    await recordCredentialChange(ctx, tx, "bootstrap", apiKey);
  });
}

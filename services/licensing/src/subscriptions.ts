import { type Databases, openDatabase } from "@licet/platform/database/database";
import type { ServiceError } from "@licet/platform/errors";
import { createPublishedTail, type Follower } from "@licet/platform/events/published-tail";
import type { Logger } from "@licet/platform/logging";
import { type Config, type SubscriptionLimits, subscriptionDefaults } from "./config.ts";
import { failure } from "./errors.ts";
import type { DB } from "./store/schema.ts";

/** Connections that all subscriptions of this process share: apart from those of unary calls, which they never keep waiting. */
const MAX_CONNECTIONS = 4;

/** What the subscriptions of this process share. */
export interface Subscriptions {
  readonly limits: SubscriptionLimits;
  /** The database on connections of their own. */
  readonly db: Databases<DB>;
  /**
   * Follows a tenant's history; close it when the subscription is over.
   *
   * @throws ServiceError RESOURCE_EXHAUSTED `TOO_MANY_SUBSCRIPTIONS`
   */
  open(tenant: string): Follower;
  stop(): Promise<void>;
}

/** Creates the shared part of subscriptions; nothing asks the database while there are none. */
export function createSubscriptions(
  { database, subscriptions: limits = subscriptionDefaults }: Config,
  system: Databases<DB>["system"],
  logger: Logger,
): Subscriptions {
  const app = openDatabase<DB>({
    url: database.appUrl,
    applicationName: "licet-licensing-subscriptions",
    maxConnections: MAX_CONNECTIONS,
  });
  const tail = createPublishedTail({ db: system, logger });
  const perTenant = new Map<string, number>();
  let total = 0;
  return {
    limits,
    db: { app, system },
    open(tenant) {
      const ofTenant = perTenant.get(tenant) ?? 0;
      if (ofTenant >= limits.maxPerTenant) throw tooMany("tenant", limits.maxPerTenant);
      if (total >= limits.maxTotal) throw tooMany("instance", limits.maxTotal);
      perTenant.set(tenant, ofTenant + 1);
      total++;
      const follower = tail.follow(tenant);
      return {
        next: follower.next,
        close() {
          follower.close();
          total--;
          const left = (perTenant.get(tenant) ?? 1) - 1;
          if (left > 0) perTenant.set(tenant, left);
          else perTenant.delete(tenant);
        },
      };
    },
    async stop() {
      await tail.stop();
      await app.destroy();
    },
  };
}

/** The error that a reader is cut off with. */
export function tooSlow(limitMs: number): ServiceError {
  const message = `The reader took no message for ${limitMs} ms; resume with the last token received.`;
  return failure("SUBSCRIBER_TOO_SLOW", message, { limit_ms: String(limitMs) });
}

function tooMany(of: "tenant" | "instance", maximum: number) {
  const whose = of === "tenant" ? "The tenant has" : "This instance serves";
  const message = `${whose} ${maximum} subscriptions, which is the most; end one, or share one among several readers.`;
  return failure("TOO_MANY_SUBSCRIPTIONS", message, { maximum: String(maximum), of });
}

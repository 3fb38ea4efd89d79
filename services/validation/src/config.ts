import { address, optionalAddress } from "@licet/mesh/settings";
import { z } from "zod";

/** What bounds the watches of entitlements. */
export interface WatchLimits {
  /** Watches of all tenants that this process serves at once. */
  readonly maxTotal: number;
  /** Watches of one tenant that this process serves at once. */
  readonly maxPerTenant: number;
  /** How long, in milliseconds, a watcher may take none of the messages that wait for it before it is cut off. */
  readonly slowAfterMs: number;
  /** How often, in milliseconds, a heartbeat is sent. */
  readonly heartbeatMs: number;
}

/** The bounds of watches that suit most. */
export const watchDefaults: WatchLimits = {
  maxTotal: 800,
  maxPerTenant: 400,
  slowAfterMs: 10_000,
  heartbeatMs: 1_000,
};

/** What the validation service can be told. */
export interface Config {
  /**
   * How many customers are kept in memory; beyond it one that was not asked about lately goes and is looked up again when
   * needed, and of as many again only the version is remembered.
   */
  readonly maxCustomers: number;
  /** How long, in milliseconds, an unknown customer counts as unknown before licensing is asked again; its first event ends it at once. */
  readonly unknownCustomerTtlMs: number;
  /** How long, in milliseconds, licensing may take to answer about one customer. */
  readonly lookUpTimeoutMs: number;
  /**
   * How old facts, in milliseconds, may be: T of the promise that a revocation is seen at the latest T after its
   * acknowledgement. Older ones are asked for at licensing, and used only as the feature's fail mode says where that is
   * not possible. Infinity switches the fence off.
   */
  readonly fenceMs: number;
  /** How long, in milliseconds, a decision on facts that are too old waits for licensing before the fail mode decides. */
  readonly staleLookUpTimeoutMs: number;
  /** How long, in milliseconds, a decision waits for the event of the write that it must have seen, before licensing is asked. */
  readonly arrivalTimeoutMs: number;
  /**
   * How long, in milliseconds and a fifth more or less, what is known of a customer counts without an event or licensing
   * confirming it; then licensing is asked in the background, at the customer's next question.
   */
  readonly confirmAfterMs: number;
  /** How often, in milliseconds, the clock is compared with that of licensing's database. */
  readonly calibrationMs: number;
  readonly watches: WatchLimits;
}

/** What suits most. */
export const defaults: Config = {
  maxCustomers: 1_000_000,
  unknownCustomerTtlMs: 5_000,
  lookUpTimeoutMs: 1_000,
  fenceMs: 30_000,
  staleLookUpTimeoutMs: 100,
  arrivalTimeoutMs: 50,
  confirmAfterMs: 300_000,
  calibrationMs: 60_000,
  watches: watchDefaults,
};

/** The settings of the process that validation is alone in. */
export const settings = z.object({
  LICENSING_ADDRESS: address("Where licensing is, which is asked for snapshots and about API keys."),
  METERING_ADDRESS: optionalAddress(
    "Where usage metering is, to which the first plan's TrackUsage and GetUsageStats lead; they are refused without it.",
  ),
  REDIS_URL: z
    .string()
    .regex(/^rediss?:\/\/\S+$/, "is no Redis URL")
    .optional()
    .meta({
      title: "A cache that all replicas share; without it each asks licensing for what it does not hold.",
      description: "a URL such as redis://:password@localhost:6379/0, or rediss: for TLS",
    }),
  MAX_CUSTOMERS: z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(1, "is less than 1"))
    .default(defaults.maxCustomers)
    .meta({
      title: "Customers kept in memory; beyond it one that was not asked about lately is looked up again when needed.",
      description: "a whole number from 1",
    }),
  MAX_WATCHES: count(
    "Watches of entitlements served at once; more are refused. They count as streams, see MAX_STREAMS.",
    watchDefaults.maxTotal,
  ),
  MAX_WATCHES_PER_TENANT: count(
    "Watches of entitlements of one tenant served at once; more are refused.",
    watchDefaults.maxPerTenant,
  ),
  WATCHER_SLOW_AFTER_MS: z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(1_000, "is less than 1000").max(300_000, "is too large"))
    .default(watchDefaults.slowAfterMs)
    .meta({
      title: "How long a watcher may take no message that waits for it, before it is cut off to resume.",
      description: "a whole number of milliseconds from 1000 to 300000",
    }),
});

/** A setting that holds how many watches there may be. */
function count(title: string, byDefault: number) {
  return z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(1, "is less than 1").max(10_000, "is too large"))
    .default(byDefault)
    .meta({ title, description: "a whole number from 1 to 10000" });
}

/** What the settings say about validation. */
export function toConfig(set: z.output<typeof settings>): Config {
  return {
    ...defaults,
    maxCustomers: set.MAX_CUSTOMERS,
    watches: {
      ...watchDefaults,
      maxTotal: set.MAX_WATCHES,
      maxPerTenant: set.MAX_WATCHES_PER_TENANT,
      slowAfterMs: set.WATCHER_SLOW_AFTER_MS,
    },
  };
}

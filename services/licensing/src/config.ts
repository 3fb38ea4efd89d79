import { databaseConfig, databaseSettings } from "@licet/mesh/settings";
import type { MasterKey } from "@licet/platform/crypto";
import { z } from "zod";

/** What bounds the subscribers of license events. */
export interface SubscriptionLimits {
  /** Subscriptions of all tenants that this process serves at once. */
  readonly maxTotal: number;
  /** Subscriptions of one tenant that this process serves at once. */
  readonly maxPerTenant: number;
  /** How long, in milliseconds, a subscriber may take none of the messages that wait for it before it is cut off. */
  readonly slowAfterMs: number;
  /** How long, in milliseconds, nothing is sent before a heartbeat is. */
  readonly heartbeatMs: number;
}

/** The bounds of subscribers that suit most. */
export const subscriptionDefaults: SubscriptionLimits = {
  maxTotal: 500,
  maxPerTenant: 50,
  slowAfterMs: 10_000,
  heartbeatMs: 3_000,
};

/** What bounds the calls of installed products, which have no API key. 0 is no bound. */
export interface PublicCallLimits {
  /** Calls that a license key may make in a day of UTC, of all replicas together. */
  readonly perKeyAndDay: number;
  /** Calls with keys that are none that one address may make in a minute, of each replica. */
  readonly attemptsPerMinute: number;
}

/** The bounds of public calls that suit most: a key may be checked once a minute. */
export const publicCallDefaults: PublicCallLimits = { perKeyAndDay: 1_440, attemptsPerMinute: 60 };

/** What licensing needs to run. */
export interface Config {
  /** Its database as each of the two serving roles. */
  readonly database: { readonly appUrl: string; readonly systemUrl: string };
  /** Connections of each role at most. */
  readonly maxConnections: number;
  /** Every key that stored secrets may be sealed under. */
  readonly masterKeys: readonly MasterKey[];
  /** The id of the key that new secrets are sealed under. */
  readonly currentMasterKey: string;
  /** What bounds the subscribers of license events; what suits most when absent. */
  readonly subscriptions?: SubscriptionLimits;
  /** What bounds public calls; what suits most when absent. */
  readonly publicCalls?: PublicCallLimits;
  /** Names the installation in what it signs, the claim `iss`; `licet` when absent. */
  readonly issuer?: string;
}

/** The issuer of an installation that was not given a name. */
export const DEFAULT_ISSUER = "licet";

/** The bytes of a master key. */
const MASTER_KEY_BYTES = 32;

/** The settings that bound public calls, wherever licensing runs. */
export const publicCallSettings = {
  CALLS_PER_KEY_AND_DAY: calls(
    "Calls that installed products may make with one license key in a day of UTC, of all replicas together.",
    publicCallDefaults.perKeyAndDay,
  ),
  ATTEMPTS_PER_MINUTE: calls(
    "Calls with license keys that are none that one address (of IPv6, its first 64 bits) may make in a minute, of each replica.",
    publicCallDefaults.attemptsPerMinute,
  ),
};

/** Values of {@link publicCallSettings}. */
type PublicCallSettings = { readonly [K in keyof typeof publicCallSettings]: number };

/** The settings of the process that licensing is alone in. */
export const settings = databaseSettings.safeExtend({
  ...publicCallSettings,
  MASTER_KEYS: z
    .string()
    .transform((text, context): MasterKey[] => {
      const keys = text.split(",").map(toMasterKey);
      const ids = new Set(keys.map((key) => key?.id));
      if (!keys.includes(undefined) && ids.size === keys.length) return keys.filter((key) => key !== undefined);
      context.addIssue("holds something that is no key, or two keys of one id");
      return z.NEVER;
    })
    .meta({
      title: "The keys that secrets in the database are sealed under: the first one seals, all of them open.",
      description: "`id:key` separated by commas, each key 32 random bytes in base64",
    }),
  MAX_SUBSCRIPTIONS: count(
    "Subscribers of license events served at once; more are refused. They count as streams, see MAX_STREAMS.",
    subscriptionDefaults.maxTotal,
  ),
  MAX_SUBSCRIPTIONS_PER_TENANT: count(
    "Subscribers of license events of one tenant served at once; more are refused.",
    subscriptionDefaults.maxPerTenant,
  ),
  SUBSCRIBER_SLOW_AFTER_MS: z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(1_000, "is less than 1000").max(300_000, "is too large"))
    .default(subscriptionDefaults.slowAfterMs)
    .meta({
      title: "How long a subscriber may take no message that waits for it, before it is cut off to resume.",
      description: "a whole number of milliseconds from 1000 to 300000",
    }),
  ISSUER: z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/)
    .default(DEFAULT_ISSUER)
    .meta({
      title: "Names the installation in token keys and signed licenses, as the claim `iss`; products compare it.",
      description: "1 to 255 visible ASCII characters, usually the public URL of the installation",
    }),
});

/** A setting that holds how many subscriptions there may be. */
function count(title: string, byDefault: number) {
  return z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(1, "is less than 1").max(10_000, "is too large"))
    .default(byDefault)
    .meta({ title, description: "a whole number from 1 to 10000" });
}

/** A setting that holds how many calls there may be. */
function calls(title: string, byDefault: number) {
  return z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(0, "is negative").max(1_000_000_000, "is too large"))
    .default(byDefault)
    .meta({ title, description: "a whole number from 0 to 1000000000; 0 is no limit" });
}

/** What the settings say about public calls. */
export function toPublicCallLimits(set: PublicCallSettings): PublicCallLimits {
  return { perKeyAndDay: set.CALLS_PER_KEY_AND_DAY, attemptsPerMinute: set.ATTEMPTS_PER_MINUTE };
}

/** What the settings say about licensing. */
export function toConfig(set: z.output<typeof settings>): Config {
  const { MASTER_KEYS: masterKeys, ISSUER: issuer } = set;
  return {
    ...databaseConfig(set, "licensing"),
    masterKeys,
    currentMasterKey: masterKeys[0]?.id ?? "",
    issuer,
    publicCalls: toPublicCallLimits(set),
    subscriptions: {
      ...subscriptionDefaults,
      maxTotal: set.MAX_SUBSCRIPTIONS,
      maxPerTenant: set.MAX_SUBSCRIPTIONS_PER_TENANT,
      slowAfterMs: set.SUBSCRIBER_SLOW_AFTER_MS,
    },
  };
}

function toMasterKey(text: string): MasterKey | undefined {
  const [, id, base64 = ""] = /^([\w-]{1,32}):([A-Za-z0-9+/]+=*)$/.exec(text.trim()) ?? [];
  const key = Buffer.from(base64, "base64");
  return id !== undefined && key.length === MASTER_KEY_BYTES ? { id, key } : undefined;
}

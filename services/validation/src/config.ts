import { address } from "@licet/mesh/settings";
import { z } from "zod";

/** What the validation service can be told. */
export interface Config {
  /**
   * How many customers are kept in memory; beyond it the least recently asked one is looked up again when needed, and of
   * as many again only the version is remembered.
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
  /** How often, in milliseconds, the clock is compared with that of licensing's database. */
  readonly calibrationMs: number;
}

/** What suits most. */
export const defaults: Config = {
  maxCustomers: 1_000_000,
  unknownCustomerTtlMs: 5_000,
  lookUpTimeoutMs: 1_000,
  fenceMs: 30_000,
  staleLookUpTimeoutMs: 100,
  arrivalTimeoutMs: 50,
  calibrationMs: 60_000,
};

/** The settings of the process that validation is alone in. */
export const settings = z.object({
  LICENSING_ADDRESS: address("Where licensing is, which is asked for snapshots and about API keys."),
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
      title: "Customers kept in memory; beyond it the least recently asked one is looked up again when needed.",
      description: "a whole number from 1",
    }),
});

/** What the settings say about validation. */
export function toConfig(set: z.output<typeof settings>): Config {
  return { ...defaults, maxCustomers: set.MAX_CUSTOMERS };
}

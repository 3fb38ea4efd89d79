import { databaseConfig, databaseSettings } from "@licet/mesh/settings";
import type { MasterKey } from "@licet/platform/crypto";
import { z } from "zod";

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
}

/** The bytes of a master key. */
const MASTER_KEY_BYTES = 32;

/** The settings of the process that licensing is alone in. */
export const settings = databaseSettings.safeExtend({
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
});

/** What the settings say about licensing. */
export function toConfig(set: z.output<typeof settings>): Config {
  const { MASTER_KEYS: masterKeys } = set;
  return { ...databaseConfig(set, "licensing"), masterKeys, currentMasterKey: masterKeys[0]?.id ?? "" };
}

function toMasterKey(text: string): MasterKey | undefined {
  const [, id, base64 = ""] = /^([\w-]{1,32}):([A-Za-z0-9+/]+=*)$/.exec(text.trim()) ?? [];
  const key = Buffer.from(base64, "base64");
  return id !== undefined && key.length === MASTER_KEY_BYTES ? { id, key } : undefined;
}

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { MasterKey } from "@licet/platform/crypto";
import { z } from "zod";
import { readIfPresent, writePrivateJson } from "./files.ts";

/** The keys that protect stored secrets. */
export interface Secrets {
  readonly masterKeys: readonly MasterKey[];
  /** Id of the one that new secrets are sealed under. */
  readonly currentMasterKey: string;
}

const schema = z.object({
  masterKeys: z.array(z.object({ id: z.string(), key: z.base64() })),
  currentMasterKey: z.string(),
});

/**
 * The secrets of a data folder, in `secrets.json`; made on the first start.
 * @throws Error when the file is damaged: making new ones would lose what is sealed under the old.
 */
export async function loadSecrets(dataDir: string): Promise<Secrets> {
  const path = join(dataDir, "secrets.json");
  const text = await readIfPresent(path);
  if (text === undefined) {
    const made = { masterKeys: [{ id: "1", key: randomBytes(32).toString("base64") }], currentMasterKey: "1" };
    await writePrivateJson(path, made);
    return toSecrets(made);
  }
  let stored: z.output<typeof schema>;
  try {
    stored = schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new Error(`${path} is damaged: restore it, or remove ${dataDir} to start anew`, { cause });
  }
  return toSecrets(stored);
}

function toSecrets({ masterKeys, currentMasterKey }: z.output<typeof schema>): Secrets {
  return { masterKeys: masterKeys.map(({ id, key }) => ({ id, key: Buffer.from(key, "base64") })), currentMasterKey };
}

import { randomBytes } from "node:crypto";
import { createLicensing } from "@licet/licensing";
import { openBus } from "@licet/mesh/bus";
import { generateApiKey } from "@licet/platform/credentials";
import { createLogger } from "@licet/platform/logging";
import { busSettingsOf, databaseOf, type Environment } from "../settings.ts";

/**
 * Issues an API key by which tenants are created: the first key of a new mesh. It is shown once and stored nowhere.
 *
 * @returns the key and a line feed.
 */
export async function issueOperatorKey(env: Environment): Promise<string> {
  const database = databaseOf(env, "licensing");
  const logger = createLogger({ level: "warn", name: "licet-operator-key" });
  const bus = await openBus(busSettingsOf(env), "licet-operator-key", logger);
  // Nothing is sealed here, so any master key does; and nothing is started: the mesh's relay tells of the new key.
  const masterKeys = [{ id: "none", key: randomBytes(32) }];
  const licensing = createLicensing(
    { database, maxConnections: 1, masterKeys, currentMasterKey: "none" },
    { bus, logger },
  );
  try {
    const { key, keyId, secretHash } = generateApiKey();
    await licensing.ensureOperatorKey({ keyId, secretHash });
    return `${key}\n`;
  } finally {
    await licensing.stop();
    await bus.stop();
  }
}

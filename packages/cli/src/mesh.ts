/** `pnpm mesh`: all services as processes on this host. */

import { kafkaFields, withKafkaRules } from "@licet/mesh/kafka-settings";
import { databaseSettings } from "@licet/mesh/settings";
import { ConfigError, parseConfig } from "@licet/platform/config";
import { settings as validationSettings } from "@licet/validation/config";
import { z } from "zod";
import { readArguments, USAGE } from "./mesh/arguments.ts";
import { createMesh } from "./mesh/mesh.ts";
import { formatTable } from "./mesh/report.ts";

const { DATABASE_URL, LICET_DATABASE_PREFIX } = databaseSettings.shape;
const { REDIS_URL } = validationSettings.shape;
const meshSettings = withKafkaRules(z.object({ ...kafkaFields, DATABASE_URL, LICET_DATABASE_PREFIX, REDIS_URL }));

const startedAt = performance.now();
try {
  const args = readArguments(process.argv.slice(2));
  if (args === undefined) process.stdout.write(USAGE);
  else await run(args);
} catch (error) {
  fail(error);
}

async function run(args: NonNullable<ReturnType<typeof readArguments>>): Promise<void> {
  const settings = parseConfig(meshSettings, process.env);
  if (args.events === "postgres" && settings.KAFKA_BROKERS !== undefined) {
    throw new ConfigError([
      "--events: is postgres, although KAFKA_BROKERS is set; it should be kafka, or one of both left away",
    ]);
  }
  const { DATABASE_URL: databaseUrl, LICET_DATABASE_PREFIX: databasePrefix, REDIS_URL: redisUrl, ...kafka } = settings;
  const notify = (sentence: string) => void process.stderr.write(`licet mesh: ${sentence}\n`);
  const mesh = createMesh(args, { databaseUrl, databasePrefix, redisUrl, kafka, notify });
  let ending = false;
  const end = async (exitCode: number) => {
    if (ending) return;
    ending = true;
    await mesh.stop();
    process.exit(exitCode);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => void end(0));
  try {
    const { info, path } = await mesh.start();
    const elapsedMs = performance.now() - startedAt;
    process.stdout.write(args.json ? `${JSON.stringify({ ...info, path })}\n` : formatTable(info, path, elapsedMs));
    fail(await mesh.failed);
    await end(1);
  } catch (error) {
    // A signal during the start makes the start fail: that is no failure.
    if (ending) return;
    fail(error);
    await end(1);
  }
}

/** Says what is wrong as one sentence; what led to it is for the log. */
function fail(error: unknown): void {
  process.exitCode = 1;
  process.stderr.write(`licet mesh: ${error instanceof Error ? error.message : String(error)}\n`);
}

import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEmbeddedPostgres } from "../database/embedded.ts";
import { fetchKafka, whyNoKafka } from "../local/kafka-release.ts";
import { createLogger } from "../logging.ts";
import { isRequired } from "./require.ts";
import { testServer } from "./test-server.ts";

/**
 * Jest's globalSetup: one Postgres for the whole run, named by LICET_TEST_DATABASE_URL. DATABASE_URL, when set, is used
 * instead of an embedded one. Data of tests need not survive a power cut, so nothing is synced to the disk.
 */
export default async function setup(): Promise<void> {
  // Where it is required, it is fetched before any test's time runs.
  if (isRequired("kafka") && process.env.KAFKA_BROKERS === undefined && whyNoKafka() === undefined) {
    await fetchKafka(undefined);
  }
  if (process.env.DATABASE_URL !== undefined) {
    process.env.LICET_TEST_DATABASE_URL = process.env.DATABASE_URL;
    return;
  }
  testServer.running = await startEmbeddedPostgres({
    dataDir: await mkdtemp(join(tmpdir(), "licet-test-")),
    ephemeral: true,
    settings: { fsync: "off", synchronous_commit: "off", full_page_writes: "off", max_connections: "200" },
    logger: createLogger({ level: "warn", name: "test-postgres" }),
  });
  process.env.LICET_TEST_DATABASE_URL = testServer.running.url;
}

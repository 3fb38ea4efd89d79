/**
 * `pnpm generate:db`: types of each service's database, from its migrations: services/X/migrations → migrated scratch
 * database → services/X/src/store/schema.ts. With `--verify` nothing is changed: it fails and shows what differs.
 * The scratch databases lie in an embedded Postgres of its own, or in the server that DATABASE_URL names.
 */
import { spawnSync } from "node:child_process";
import { existsSync, globSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { startEmbeddedPostgres } from "../packages/platform/src/database/embedded.ts";
import { createLogger } from "../packages/platform/src/logging.ts";
import { createTestDatabase } from "../packages/platform/src/testing/database.ts";

const root = path.resolve(import.meta.dirname, "..");
const verify = process.argv.includes("--verify");

const embedded = process.env.DATABASE_URL === undefined ? await startScratchServer() : undefined;
process.env.LICET_TEST_DATABASE_URL = embedded?.url ?? process.env.DATABASE_URL;
try {
  const services = globSync("services/*/migrations", { cwd: root }).map(path.dirname).sort();
  for (const service of services) if (!(await generate(service))) process.exitCode = 1;
} finally {
  await embedded?.stop();
}

function startScratchServer() {
  return startEmbeddedPostgres({
    dataDir: mkdtempSync(path.join(tmpdir(), "licet-generate-")),
    ephemeral: true,
    settings: { fsync: "off" },
    logger: createLogger({ level: "warn", name: "generate-db" }),
  });
}

/** Writes or verifies the types of one service; says what it did. */
async function generate(service: string): Promise<boolean> {
  const target = path.join(service, "src/store/schema.ts");
  const scratch = await createTestDatabase<unknown>({
    name: path.basename(service).replaceAll("-", "_"),
    migrations: path.join(root, service, "migrations"),
  });
  try {
    const args = ["--dialect", "postgres", "--url", "env(LICET_SCRATCH_URL)", "--out-file", path.join(root, target)];
    // As database.ts parses them.
    args.push("--type-mapping", JSON.stringify({ int8: "bigint" }), "--date-parser", "string");
    args.push("--exclude-pattern", "kysely_migration*");
    if (verify) args.push("--verify");
    const { status } = spawnSync("kysely-codegen", args, {
      cwd: root,
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, LICET_SCRATCH_URL: scratch.url("licet_owner") },
    });
    const done = status === 0 && existsSync(path.join(root, target));
    console.log(
      `${target}: ${done ? (verify ? "up to date" : "written") : verify ? "DIFFERS, run pnpm generate:db" : "FAILED"}`,
    );
    return done;
  } finally {
    await scratch.drop();
  }
}

import { startEmbeddedPostgres } from "../database/embedded.ts";
import { createLogger } from "../logging.ts";

// A program for tests: runs an embedded Postgres on the folder named by its argument until it is killed, and prints its
// process id and URL as a line of JSON.
const [dataDir = ""] = process.argv.slice(2);
const { pid, url } = await startEmbeddedPostgres({ dataDir, logger: createLogger({ level: "silent", name: "held" }) });
process.stdout.write(`${JSON.stringify({ pid, url })}\n`);

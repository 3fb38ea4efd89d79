import { fileURLToPath } from "node:url";

/** The folder of the Postgres log's migrations. */
export const migrations = fileURLToPath(new URL("../../migrations/bus", import.meta.url));

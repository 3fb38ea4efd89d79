import { fileURLToPath } from "node:url";

/** Migrations of the tables that platform's own tests work on: `note` and `idempotency`. */
export const exampleMigrations = fileURLToPath(new URL("example-migrations", import.meta.url));

import type { EmbeddedPostgres } from "../database/embedded.ts";

/** The Postgres of this Jest run, shared by globalSetup and globalTeardown, which run in Jest's own process. */
export const testServer: { running?: EmbeddedPostgres } = {};

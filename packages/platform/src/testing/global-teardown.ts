import { testServer } from "./test-server.ts";

/** Jest's globalTeardown: ends what globalSetup started. */
export default async function teardown(): Promise<void> {
  await testServer.running?.stop();
}

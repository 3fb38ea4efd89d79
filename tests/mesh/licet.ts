import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { asAdministrator } from "@licet/platform/database/roles";
import { createLogger } from "@licet/platform/logging";
import { type Channel, createChannel } from "@licet/platform/rpc/client";
import { testServerUrl } from "@licet/platform/testing/database";
import { ATTEMPTS, patient } from "@licet/platform/testing/patient";
import { createStandalone, type Started } from "@licet/standalone";

/** A whole Licet in this process, on the test server's Postgres and free ports. */
export interface TestLicet extends Started {
  /** A patient channel that calls as a tenant's role, such as `tradsys`, `service`. */
  as(tenant: string, role: string): Channel;
  /** What the names of its databases begin with. */
  readonly databasePrefix: string;
  /** Runs SQL as superuser in one of the databases: `licensing`, `metering`, `bus`. */
  sql<T>(database: string, text: string): Promise<T[]>;
  stop(): Promise<void>;
}

/** Starts one, with or without demo data, in databases of its own. */
export async function startLicet({ seed }: { seed: boolean }): Promise<TestLicet> {
  const dataDir = mkdtempSync(path.join(tmpdir(), "licet-mesh-"));
  const databasePrefix = `mesh_${randomBytes(4).toString("hex")}`;
  const ports = { grpcPort: 0, webPort: 0, metricsPort: 0 };
  const config = { ...ports, dataDir, ephemeral: false, seed, host: "127.0.0.1", databaseUrl: testServerUrl() };
  const logger = createLogger({ level: "silent", name: "mesh" });
  const standalone = createStandalone(
    { ...config, otlpEndpoint: undefined, logLevel: "error" },
    { databasePrefix, logger },
  );
  const started = await standalone.start();
  const channels: Channel[] = [];
  const databases = ["licensing", "metering", "bus"].map((name) => `${databasePrefix}_${name}`);
  return {
    ...started,
    databasePrefix,
    as(tenant, role) {
      const credential = started.run.apiKeys[tenant]?.[role];
      if (credential === undefined) throw new Error(`there is no key of ${tenant}'s ${role}`);
      const address = new URL(started.run.grpcUrl).host;
      const channel = patient(createChannel({ address, credential }), ATTEMPTS);
      channels.push(channel);
      return channel;
    },
    sql: (database, text) => {
      const url = new URL(testServerUrl());
      url.pathname = `/${databasePrefix}_${database}`;
      return asAdministrator(url.href, async (client) => (await client.query(text)).rows);
    },
    async stop() {
      for (const channel of channels) channel.close();
      await standalone.stop();
      await asAdministrator(testServerUrl(), async (client) => {
        for (const database of databases) await client.query(`DROP DATABASE IF EXISTS "${database}" WITH (FORCE)`);
      });
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

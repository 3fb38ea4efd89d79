import { randomBytes } from "node:crypto";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { asAdministrator } from "@licet/platform/database/roles";
import { createLogger } from "@licet/platform/logging";
import { testServerUrl } from "@licet/platform/testing/database";
import { createStandalone, type Standalone, type Started } from "../src/service.ts";

const databasePrefix = `test_standalone_${randomBytes(4).toString("hex")}`;
let dataDir: string;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "licet-database-url-"));
});
afterAll(async () => {
  const names = await databaseNames();
  await asAdministrator(testServerUrl(), async (client) => {
    for (const name of names) await client.query(`DROP DATABASE ${name} WITH (FORCE)`);
  });
  await rm(dataDir, { recursive: true });
});

function create(): Standalone {
  const config = {
    dataDir,
    ephemeral: false,
    seed: false,
    host: "127.0.0.1",
    grpcPort: 0,
    webPort: 0,
    metricsPort: 0,
    databaseUrl: testServerUrl(),
    otlpEndpoint: undefined,
    logLevel: "warn",
  } as const;
  return createStandalone(config, { databasePrefix, logger: createLogger({ level: "silent", name: "test" }) });
}

async function databaseNames(): Promise<string[]> {
  const { rows } = await asAdministrator(testServerUrl(), (client) =>
    client.query<{ datname: string }>("SELECT datname FROM pg_database WHERE starts_with(datname, $1) ORDER BY 1", [
      databasePrefix,
    ]),
  );
  return rows.map((row) => row.datname);
}

async function createTenant({ run }: Started, tenantId: string): Promise<{ status: number; answer: unknown }> {
  const response = await fetch(`${run.webUrl}/licet.licensing.v1.TenantService/CreateTenant`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": run.apiKeys.platform?.operator ?? "" },
    body: JSON.stringify({ requestId: `create-${tenantId}`, tenantId, name: tenantId }),
  });
  return { status: response.status, answer: await response.json() };
}

test("with DATABASE_URL it lives on that server, starts no Postgres of its own, and finds its data again", async () => {
  const first = create();
  let created: unknown;
  try {
    const started = await first.start();
    expect(await databaseNames()).toEqual(["bus", "licensing", "metering"].map((name) => `${databasePrefix}_${name}`));
    await expect(stat(join(dataDir, "postgres"))).rejects.toMatchObject({ code: "ENOENT" });
    const { status, answer } = await createTenant(started, "acme");
    expect(status).toBe(200);
    created = answer;
  } finally {
    await first.stop();
  }
  const second = create();
  try {
    // The same request again: the stored reply, its secret opened with the key in secrets.json.
    expect(await createTenant(await second.start(), "acme")).toEqual({ status: 200, answer: created });
  } finally {
    await second.stop();
  }
});

test("stopped in the middle of its start, it gives up and closes what it has opened", async () => {
  const licet = create();
  const started = licet.start();
  await licet.stop();
  // Where the start hears of it late, it fails at what can no longer be opened.
  await expect(started).rejects.toThrow(/stopped during the start|the shutdown has begun/);
  const next = create();
  try {
    await next.start();
  } finally {
    await next.stop();
  }
});

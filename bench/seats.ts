import { createHash } from "node:crypto";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { SeatChangedSchema } from "@licet/contracts/licet/licensing/v1/seat_events_pb";
import { InstanceType } from "@licet/contracts/licet/licensing/v1/seat_pb";
import { startEmbeddedPostgres } from "@licet/platform/database/embedded";
import { asAdministrator } from "@licet/platform/database/roles";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { createChannel } from "@licet/platform/rpc/client";
import pg from "pg";
import { startChild } from "./child.ts";
import { clientsOf, type LicensingClients, PRODUCT, TENANT } from "./licensing.ts";
import { createLicensingDatabase, type LicensingDatabase } from "./licensing-data.ts";
import { type Benchmark, median, type Row } from "./report.ts";

const CONCURRENCY = 16;
/** As many as licensing has for the calls of installed products; the bare loop gets as many. */
const PUBLIC_CONNECTIONS = 4;
const ROUNDS = 5;
const ROUND_MS = 3_000;
const WARM_UP_MS = 1_500;
/** Licenses whose seats are taken, all without a limit: so many that two callers seldom want the same one. */
const LICENSES = 500;

interface Sold {
  readonly licenseId: string;
  readonly keyId: string;
  readonly secret: string;
}

interface Operation {
  readonly name: string;
  ours(clients: LicensingClients, sold: Sold): Promise<unknown>;
  bare(client: pg.PoolClient, sold: Sold): Promise<unknown>;
}

/** What a key is asked about, as one statement. */
const answer = `
  SELECT key.expires_at, key.revoked_at, key.replaced_by, product.offline_days, product.seat_mode, product.lease_seconds,
         license.*, plan_version.features AS plan_features, plan_version.limits AS plan_limits, seats.seats_used
    FROM license_key key
    JOIN keyed_license held ON held.tenant_id = key.tenant_id AND held.key_id = key.key_id AND held.product = $3
    JOIN license ON license.tenant_id = key.tenant_id AND license.license_id = held.license_id
    JOIN product ON product.tenant_id = key.tenant_id AND product.product = $3
    LEFT JOIN plan_version ON plan_version.tenant_id = license.tenant_id AND plan_version.product = license.product
         AND plan_version.plan = license.plan AND plan_version.version = license.plan_version
    LEFT JOIN license_seats seats ON seats.tenant_id = key.tenant_id AND seats.license_id = license.license_id
   WHERE key.tenant_id = $1 AND key.key_id = $2`;

/** An event, and a reply, of about the size of ours; the service beside publishes the event. */
const told = Buffer.from(
  toBinary(
    SeatChangedSchema,
    create(SeatChangedSchema, {
      tenantId: TENANT,
      customerId: "customer",
      licenseId: newId(),
      reason: "x".repeat(150),
    }),
  ),
);
const reply = Buffer.alloc(400, 1);

/** What a program that does nothing else would send: the fewest statements that read, write and keep the same. */
const operations: readonly Operation[] = [
  {
    name: "ActivateInstance",
    ours: ({ activations }, { secret }) =>
      activations.activateInstance({
        requestId: newId(),
        key: secret,
        product: PRODUCT,
        instance: { type: InstanceType.HOSTNAME, id: newId() },
      }),
    async bare(client, { licenseId, keyId }) {
      const [requestId, activationId, eventId] = [newId(), newId(), newId()];
      const hash = createHash("sha256").update(requestId).digest();
      await client.query(
        "INSERT INTO idempotency (tenant_id, method, key, request_hash) VALUES ($1, 'bare', $2, $3) ON CONFLICT DO NOTHING",
        [TENANT, requestId, hash],
      );
      await client.query(answer, [TENANT, keyId, PRODUCT]);
      const { rows } = await client.query<{ version: string }>(
        `WITH taken AS (
           UPDATE license_seats SET seats_used = seats_used + 1, version = version + 1
            WHERE tenant_id = $1 AND license_id = $2 AND seats_used < coalesce(seats_max, 100000) RETURNING version),
         put AS (
           INSERT INTO activation (tenant_id, license_id, activation_id, fingerprint, instance_type, instance_id, display_name,
                                   version, deployment_id, activated_at, last_seen_at)
           SELECT $1, $2, $3, $4, 'hostname', $5, '', '', '', now(), now() FROM taken ON CONFLICT DO NOTHING)
         SELECT version FROM taken`,
        [TENANT, licenseId, activationId, hash, activationId],
      );
      await client.query(
        `WITH written AS (
           INSERT INTO event (event_id, tenant_id, stream, version, type, payload, actor)
           VALUES ($1, $2, $3, $4, 'licet.seat.activated.v1', $5, $6) RETURNING id)
         INSERT INTO outbox_pending (event_id) SELECT id FROM written`,
        [eventId, TENANT, `seats/${licenseId}`, rows[0]?.version, told, keyId],
      );
      await client.query("UPDATE idempotency SET reply = $3 WHERE tenant_id = $1 AND method = 'bare' AND key = $2", [
        TENANT,
        requestId,
        reply,
      ]);
    },
  },
  {
    name: "Heartbeat",
    ours: ({ activations }, { secret }) => activations.heartbeat({ requestId: newId(), ...heldBy(secret) }),
    async bare(client, { licenseId, keyId }) {
      await client.query(answer, [TENANT, keyId, PRODUCT]);
      await client.query(
        `UPDATE activation SET last_seen_at = now(), lease_until = NULL
          WHERE tenant_id = $1 AND license_id = $2 AND fingerprint = $3 AND (lease_until IS NULL OR lease_until > now())
         RETURNING activation_id, instance_id, version, activated_at, last_seen_at`,
        [TENANT, licenseId, fingerprint],
      );
    },
  },
  {
    name: "CheckKey",
    ours: ({ activations }, { secret }) => activations.checkKey({ key: secret, product: PRODUCT }),
    bare: (client, { keyId }) => client.query(answer, [TENANT, keyId, PRODUCT]),
  },
];

const heldBy = (key: string) => ({ key, product: PRODUCT, instance: { type: InstanceType.HOSTNAME, id: "held" } });
const fingerprint = createHash("sha256").update("hostname\0held").digest();

/** Installed products' calls over gRPC against hand-written SQL under the same role and row-level security. */
export const seats: Benchmark = {
  about: `activating, heartbeats and key checks of ${LICENSES} licenses against bare SQL in a pg loop, ${CONCURRENCY} callers`,
  async run() {
    const logger = createLogger({ level: "error", name: "bench" });
    const dataDir = await mkdtemp(path.join(tmpdir(), "licet-bench-"));
    const postgres = await startEmbeddedPostgres({
      dataDir,
      ephemeral: true,
      settings: { shared_buffers: "512MB", max_connections: "100", max_wal_size: "4GB" },
      logger,
    });
    const server = startChild("./licensing-server.ts", [], 0);
    try {
      const database = await createLicensingDatabase(postgres.url, LICENSES);
      await asAdministrator(database.adminUrl, (client) =>
        client.query("INSERT INTO tenant (tenant_id, name, created_at) VALUES ($1, 'Bench', now())", [TENANT]),
      );
      const port = await server.ask<number>(database.urls);
      const channel = createChannel({ address: `127.0.0.1:${port}` });
      const clients = clientsOf(channel);
      const sold = await sell(clients);
      await asAdministrator(database.adminUrl, (client) => client.query("VACUUM ANALYZE"));
      const rows: Row[] = [];
      for (const operation of operations) rows.push(await compare(database, clients, sold, operation));
      channel.close();
      return rows;
    } finally {
      await server.stop();
      await postgres.stop();
    }
  },
};

async function sell({ catalog, customers, licenses, activations }: LicensingClients): Promise<Sold[]> {
  const product = PRODUCT;
  await catalog.createProduct({ requestId: newId(), product, name: product, keyFormat: 1, keyPrefix: "TS" });
  const terms = { type: 2, features: ["*"], limits: [{ metric: "users", maximum: 50n, window: 1, enforcement: 1 }] };
  await catalog.createPlan({ requestId: newId(), product, plan: "standard", name: "Standard", terms });
  const sold: Sold[] = [];
  for (let index = 0; index < LICENSES; index++) {
    const customerId = `customer-${index}`;
    await customers.createCustomer({ requestId: newId(), customerId, name: customerId });
    const key = { case: "issueKey", value: true } as const;
    const wanted = { requestId: newId(), customerId, product, plan: "standard", key };
    const reply = await licenses.provisionLicense(wanted);
    await activations.activateInstance({ requestId: newId(), ...heldBy(reply.keySecret) });
    sold.push({
      licenseId: reply.license?.licenseId ?? "",
      keyId: reply.key?.keyId ?? "",
      secret: reply.keySecret,
    });
  }
  return sold;
}

async function compare(
  { urls }: LicensingDatabase,
  clients: LicensingClients,
  sold: readonly Sold[],
  { name, ours, bare }: Operation,
): Promise<Row> {
  const pool = new pg.Pool({ connectionString: urls.appUrl, max: PUBLIC_CONNECTIONS });
  let number = 0;
  // Far apart, so that two callers don't wait for the row of one license.
  const next = () => {
    number = (number + 127) % sold.length;
    return sold[number] as Sold;
  };
  const bareCall = () => inTransaction(pool, (client) => bare(client, next()));
  const figures: { bare: number[]; ours: number[] } = { bare: [], ours: [] };
  try {
    await throughput(WARM_UP_MS, bareCall);
    await throughput(WARM_UP_MS, () => ours(clients, next()));
    for (let round = 0; round < ROUNDS; round++) {
      figures.bare.push(await throughput(ROUND_MS, bareCall));
      figures.ours.push(await throughput(ROUND_MS, () => ours(clients, next())));
    }
  } finally {
    await pool.end();
  }
  const [baseline, reached] = [median(figures.bare), median(figures.ours)];
  const target = "≥ 0.5 × bare SQL";
  return { name, baseline, ours: reached, unit: "calls/s", target, met: reached >= 0.5 * baseline };
}

async function inTransaction(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<unknown>): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    await client.query("SELECT set_config('licet.tenant', $1, true)", [TENANT]);
    await work(client);
    await client.query("COMMIT");
  } finally {
    client.release();
  }
}

/** Calls a second of as many callers as there are, for a time. */
async function throughput(forMs: number, call: () => Promise<unknown>): Promise<number> {
  const begunAt = performance.now();
  let calls = 0;
  const loop = async (): Promise<void> => {
    while (performance.now() - begunAt < forMs) {
      await call();
      calls++;
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, loop));
  return calls / ((performance.now() - begunAt) / 1_000);
}

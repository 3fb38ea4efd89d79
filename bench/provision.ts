import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { startEmbeddedPostgres } from "@licet/platform/database/embedded";
import { asAdministrator } from "@licet/platform/database/roles";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { type Channel, createChannel } from "@licet/platform/rpc/client";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import pg from "pg";
import { type Child, startChild } from "./child.ts";
import {
  CONNECTIONS,
  clientsOf,
  createBenchLicensing,
  type LicensingClients,
  PLAN,
  PRODUCT,
  scopesOfAdmin,
  TENANT,
} from "./licensing.ts";
import {
  createLicensingDatabase,
  customerOf,
  customersOf,
  emailOf,
  fill,
  type LicensingDatabase,
  licenseOf,
  setVersion,
} from "./licensing-data.ts";
import { MARKED_VERSION, type Recording, record, replay, type Subject } from "./replay.ts";
import { type Benchmark, median, quantile, type Row } from "./report.ts";

/** Callers at once, of ours and of the bare loop. */
const CONCURRENCY = 16;
const ROUNDS = 5;
const ROUND_MS = 3_000;
const WARM_UP_MS = 1_500;
/** Keys that calls present; the others only fill the index. */
const KEYS = 500;
const RENEWED_UNTIL = timestampFromMs(Date.UTC(2040, 0, 1));

/** One operation of licensing as it is measured. */
interface Operation {
  readonly name: string;
  call(clients: LicensingClients, about: Subject, keys: readonly string[]): Promise<unknown>;
}

const operations: readonly Operation[] = [
  {
    name: "ProvisionLicense",
    call: ({ licenses }, { requestId, customerId }) =>
      licenses.provisionLicense({ requestId, customerId, product: PRODUCT, plan: PLAN }),
  },
  {
    name: "RenewLicense",
    call: ({ licenses }, { requestId, licenseId }) =>
      licenses.renewLicense({ requestId, licenseId, end: { case: "validUntil", value: RENEWED_UNTIL } }),
  },
  {
    name: "CheckKey",
    call: ({ activations }, _about, keys) =>
      activations.checkKey({ product: PRODUCT, key: keys[Math.floor(Math.random() * keys.length)] ?? "" }),
  },
];

/** A licensing service with a number of licenses, and what its operations send to the database. */
interface Side {
  readonly database: LicensingDatabase;
  readonly server: Child;
  readonly channel: Channel;
  readonly clients: LicensingClients;
  readonly keys: readonly string[];
  readonly recordings: ReadonlyMap<string, Recording>;
  /** What the next calls are about. */
  next(): Subject;
}

/** Licensing's writes against the same SQL sent by a bare loop of `pg`, with as many connections and callers. */
export const provision: Benchmark = {
  about: `licensing with 10,000 licenses against its own SQL in a bare pg loop, ${CONCURRENCY} callers`,
  run: () =>
    withSides([10_000], async ([side]) => {
      if (side === undefined) throw new Error("there is no side");
      const rows: Row[] = [];
      for (const operation of operations) rows.push(await compareWithBare(side, operation));
      return rows;
    }),
};

/** What a hundred times as many licenses make of the cost of an operation. */
export const growth: Benchmark = {
  about: "licensing with 10,000, 100,000 and 1,000,000 licenses: calls a second, and ListLicenses by e-mail",
  run: () =>
    withSides([10_000, 100_000, 1_000_000], async (sides) => {
      const rows: Row[] = [];
      for (const operation of operations) rows.push(...(await compareSizes(sides, operation)));
      for (const side of sides) rows.push(await listByEmail(side));
      return rows;
    }),
};

async function withSides(
  sizes: readonly number[],
  measure: (sides: readonly Side[]) => Promise<Row[]>,
): Promise<readonly Row[]> {
  const logger = createLogger({ level: "error", name: "bench" });
  const dataDir = await mkdtemp(path.join(tmpdir(), "licet-bench-"));
  const postgres = await startEmbeddedPostgres({
    dataDir,
    ephemeral: true,
    settings: { shared_buffers: "512MB", max_connections: "100", max_wal_size: "4GB" },
    logger,
  });
  const opened: Pick<Side, "server" | "channel">[] = [];
  try {
    const sides: Side[] = [];
    for (const size of sizes) sides.push(await openSide(postgres.url, size, opened));
    return await measure(sides);
  } finally {
    for (const { channel, server } of opened) {
      channel.close();
      await server.stop();
    }
    await postgres.stop();
  }
}

/** @param opened - gets what is to be closed, also where this throws */
async function openSide(serverUrl: string, size: number, opened: Pick<Side, "server" | "channel">[]): Promise<Side> {
  const begunAt = performance.now();
  const database = await createLicensingDatabase(serverUrl, size);
  await asAdministrator(database.adminUrl, (client) =>
    client.query("INSERT INTO tenant (tenant_id, name, created_at) VALUES ($1, 'Bench', now())", [TENANT]),
  );
  const server = startChild("./licensing-server.ts", [], 0);
  const port = await server.ask<number>(database.urls);
  const channel = createChannel({ address: `127.0.0.1:${port}` });
  opened.push({ server, channel });
  const clients = clientsOf(channel);
  await furnish(clients);
  await fill(database);
  const keys: string[] = [];
  for (let index = 0; index < KEYS; index++) {
    const { secret } = await clients.keys.issueKey({ requestId: newId(), licenseIds: [licenseOf(index * 7)] });
    keys.push(secret);
  }
  const recordings = await recordAll(database, keys);
  let number = size - 1;
  const next = (): Subject => {
    // Far apart, so that two callers don't wait for the row of one customer.
    number = (number + 7_919) % size;
    return { requestId: newId(), customerId: customerOf(number), licenseId: licenseOf(number) };
  };
  const seconds = ((performance.now() - begunAt) / 1_000).toFixed(0);
  console.log(`${size.toLocaleString("en")} licenses after ${seconds} s`);
  return { database, server, channel, clients, keys, recordings, next };
}

async function furnish({ catalog }: LicensingClients): Promise<void> {
  await catalog.createProduct({
    requestId: newId(),
    product: PRODUCT,
    name: "Trading",
    graceDays: 3,
    keyFormat: 1,
    keyPrefix: "TS",
  });
  const feature = "basic_trading";
  await catalog.createFeature({ requestId: newId(), product: PRODUCT, feature, name: "Basic trading" });
  const terms = {
    type: 2,
    features: [feature],
    limits: [{ metric: "users", maximum: 50n, window: 1, enforcement: 1 }],
    seats: 5,
  };
  await catalog.createPlan({ requestId: newId(), product: PRODUCT, plan: PLAN, name: "Standard", terms });
}

/** What each operation sends to the database, from a service in this process. */
async function recordAll(database: LicensingDatabase, keys: readonly string[]): Promise<Map<string, Recording>> {
  const logger = createLogger({ level: "error", name: "bench" });
  const bus = { subscribe: () => Promise.reject(new Error("nothing is subscribed to")) };
  const unused = {
    ...bus,
    publish: async () => undefined,
    heartbeat: async () => undefined,
    id: async () => "none",
    endOffsets: async () => [],
    stop: async () => undefined,
  };
  const licensing = createBenchLicensing(database.urls, unused, logger);
  const pipeline = createPipeline({
    authenticate: async () => ({
      id: "bench",
      tenant: TENANT,
      role: "admin",
      scopes: scopesOfAdmin,
      kind: "api_key" as const,
    }),
    maxConcurrent: 10,
    maxStreams: 1,
    logger,
  });
  const clients = clientsOf(createLocalTransport({ bindings: licensing.bindings, pipeline }));
  try {
    const recordings = new Map<string, Recording>();
    for (const [index, { name, call }] of operations.entries()) {
      // A customer each, as a version is raised to the marked one only once.
      const license = index * 100;
      const about = (): Subject => ({
        requestId: newId(),
        customerId: customerOf(license),
        licenseId: licenseOf(license),
      });
      // What only first calls do is not the operation's cost: of a key, it is looked up, and calls of the day are taken.
      const sameKey = keys.slice(0, 1);
      for (let first = 0; first < 2; first++) await call(clients, about(), sameKey);
      await setVersion(database.adminUrl, customerOf(license), MARKED_VERSION);
      const subject = about();
      recordings.set(name, await record(subject, () => call(clients, subject, sameKey)));
    }
    return recordings;
  } finally {
    await licensing.stop();
  }
}

/** Calls a second of as many callers as there are, for a time. */
async function throughput(forMs: number, call: (caller: number) => Promise<unknown>): Promise<number> {
  const begunAt = performance.now();
  let calls = 0;
  const loop = async (_: unknown, caller: number): Promise<void> => {
    while (performance.now() - begunAt < forMs) {
      await call(caller);
      calls++;
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, loop));
  return calls / ((performance.now() - begunAt) / 1_000);
}

async function compareWithBare(side: Side, { name, call }: Operation): Promise<Row> {
  const recording = side.recordings.get(name);
  if (recording === undefined) throw new Error(`${name} was not recorded`);
  const { appUrl, systemUrl } = side.database.urls;
  const pools = {
    app: new pg.Pool({ connectionString: appUrl, max: CONNECTIONS }),
    system: new pg.Pool({ connectionString: systemUrl, max: CONNECTIONS }),
  };
  const bare = () => replay(pools, recording, side.next());
  const ours = () => call(side.clients, side.next(), side.keys);
  const figures: { bare: number[]; ours: number[] } = { bare: [], ours: [] };
  try {
    await throughput(WARM_UP_MS, bare);
    await throughput(WARM_UP_MS, ours);
    for (let round = 0; round < ROUNDS; round++) {
      figures.bare.push(await throughput(ROUND_MS, bare));
      figures.ours.push(await throughput(ROUND_MS, ours));
    }
  } finally {
    await pools.app.end();
    await pools.system.end();
  }
  const [baseline, reached] = [median(figures.bare), median(figures.ours)];
  return {
    name,
    baseline,
    ours: reached,
    unit: "calls/s",
    target: "≥ 0.5 × its bare SQL",
    met: reached >= 0.5 * baseline,
  };
}

async function compareSizes([smallest, ...larger]: readonly Side[], { name, call }: Operation): Promise<Row[]> {
  if (smallest === undefined) throw new Error("there is no side");
  const sides = [smallest, ...larger];
  const ours =
    ({ clients, next, keys }: Side) =>
    () =>
      call(clients, next(), keys);
  const figures = sides.map((): number[] => []);
  for (const side of sides) await throughput(WARM_UP_MS, ours(side));
  for (let round = 0; round < ROUNDS; round++) {
    for (const [index, side] of sides.entries()) figures[index]?.push(await throughput(ROUND_MS, ours(side)));
  }
  const [baseline = 0, ...rest] = figures.map(median);
  return rest.map((reached, index) => ({
    name: `${name}, ${larger[index]?.database.size.toLocaleString("en")} against 10,000 licenses`,
    baseline,
    ours: reached,
    unit: "calls/s",
    target: "≥ 0.9 ×",
    met: reached >= 0.9 * baseline,
  }));
}

/** The 95th percentile of one caller's ListLicenses by e-mail, against that of a SELECT 1 beside it. */
async function listByEmail(side: Side): Promise<Row> {
  const { database, clients } = side;
  const client = new pg.Client({ connectionString: database.urls.appUrl });
  await client.connect();
  const times: { bare: number[]; ours: number[] } = { bare: [], ours: [] };
  const timed = async (into: number[], call: () => Promise<unknown>): Promise<void> => {
    const begunAt = performance.now();
    await call();
    into.push(performance.now() - begunAt);
  };
  try {
    for (let index = 0; index < 2_500; index++) {
      const email = emailOf((index * 7_919) % customersOf(database));
      if (index === 500) times.ours.length = times.bare.length = 0;
      await timed(times.bare, () => client.query("SELECT 1"));
      await timed(times.ours, () => clients.licenses.listLicenses({ holder: { case: "email", value: email } }));
    }
  } finally {
    await client.end();
  }
  const ours = quantile(times.ours, 0.95);
  return {
    name: `ListLicenses by e-mail of ${database.size.toLocaleString("en")}, p95; baseline SELECT 1`,
    baseline: quantile(times.bare, 0.95),
    ours,
    unit: "ms",
    target: "< 10 ms",
    met: ours < 10,
  };
}

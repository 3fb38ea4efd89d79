import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { startEmbeddedPostgres } from "@licet/platform/database/embedded";
import { asAdministrator } from "@licet/platform/database/roles";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { createChannel } from "@licet/platform/rpc/client";
import { startChild } from "./child.ts";
import { TENANT } from "./licensing.ts";
import { createLicensingDatabase } from "./licensing-data.ts";
import type { Benchmark, Row } from "./report.ts";

/** Calls of the baseline: an import is to be better than a call for each row. */
const SINGLE_CALLS = 500;
const SAMPLE_MS = 1_000;
/** From this share of the rows on, memory is to stay as it is: before, caches and pools fill. */
const WARM_SHARE = 0.2;
/** How much more than then a process may have at its highest. */
const FLAT_FACTOR = 1.5;
const IMPORT_ID = "bench";
/** The server asks nobody about it. */
const KEY = "bench";
const SETTINGS = { shared_buffers: "512MB", max_wal_size: "4GB" };

/** What both processes had at a moment of the import. */
interface Sample {
  readonly rows: number;
  readonly serverMb: number;
  readonly clientMb: number;
}

/**
 * `licet import` of so many customers into a licensing service of its own: rows in a second, and the memory of both processes
 * meanwhile. Nothing else is in the service's process: a validation replica there would hold every customer, as it should.
 */
export function importFile(rows: number, limitMs: number): Benchmark {
  return {
    about: `\`licet import\` of ${rows.toLocaleString("en-US")} customers: speed against single calls, memory over time`,
    run: () =>
      withLicensing(async (server) => {
        const folder = mkdtempSync(path.join(tmpdir(), "licet-bench-import-"));
        try {
          const single = await singleCalls(server);
          const file = path.join(folder, "customers.csv");
          await pipeline(Readable.from(lines(rows)), createWriteStream(file));
          return await measure(server, { file, rows, limitMs, single });
        } finally {
          rmSync(folder, { recursive: true, force: true });
        }
      }),
  };
}

/** A licensing service in a process of its own, which takes any key for that of an admin. */
interface Server {
  readonly address: string;
  readonly pid: number | undefined;
}

async function withLicensing(work: (server: Server) => Promise<Row[]>): Promise<Row[]> {
  const logger = createLogger({ level: "error", name: "bench" });
  const dataDir = mkdtempSync(path.join(tmpdir(), "licet-bench-"));
  const postgres = await startEmbeddedPostgres({ dataDir, ephemeral: true, settings: SETTINGS, logger });
  const child = startChild("./licensing-server.ts", [], 0);
  try {
    const database = await createLicensingDatabase(postgres.url, 0);
    await asAdministrator(database.adminUrl, (client) =>
      client.query("INSERT INTO tenant (tenant_id, name, created_at) VALUES ($1, 'Bench', now())", [TENANT]),
    );
    const port = await child.ask<number>(database.urls);
    return await work({ address: `127.0.0.1:${port}`, pid: child.pid });
  } finally {
    await child.stop();
    await postgres.stop();
  }
}

function* lines(rows: number): Generator<string> {
  yield "customer_id,name,email,domain,industry,employee_count\n";
  for (let row = 0; row < rows; row++) {
    yield `customer-${row},"Organisation ${row}, Ltd",desk@c${row}.example,c${row}.example,finance,${row % 1000}\n`;
  }
}

/** Rows in a second where each is a call, one after the other. */
async function singleCalls({ address }: Server): Promise<number> {
  const channel = createChannel({ address, credential: KEY });
  const customers = createClient(CustomerService, channel);
  const begunAt = performance.now();
  for (let call = 0; call < SINGLE_CALLS; call++) {
    await customers.createCustomer({ requestId: newId(), customerId: `single-${call}`, name: "Single" });
  }
  channel.close();
  return (SINGLE_CALLS * 1_000) / (performance.now() - begunAt);
}

async function measure(
  server: Server,
  { file, rows, limitMs, single }: { file: string; rows: number; limitMs: number; single: number },
): Promise<Row[]> {
  const cli = fileURLToPath(new URL("../packages/cli/src/main.ts", import.meta.url));
  const args = ["-C", "licet-src", cli, "import", "customers", file, "--id", IMPORT_ID];
  const env = { ...process.env, LICET_API_KEY: KEY, LICET_GRPC_URL: `http://${server.address}` };
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", "inherit", "ignore"] });
  const ended = once(child, "exit") as Promise<[number | null]>;
  const begunAt = performance.now();
  const samples = await sample(server, child, begunAt + limitMs);
  const [code] = await ended;
  const seconds = (performance.now() - begunAt) / 1_000;
  const done = samples.at(-1)?.rows ?? 0;
  if (code !== 0 && done < rows) console.log(`ended after ${seconds.toFixed(0)} s with ${done} rows`);
  printCourse(samples, rows);
  const warm = samples.filter((at) => at.rows >= done * WARM_SHARE);
  return [
    {
      name: "rows against single calls",
      baseline: single,
      ours: done / seconds,
      unit: "rows/s",
      target: "≥ 2 ×",
      met: done / seconds >= 2 * single,
    },
    memoryRow("server's memory, highest", warm, ({ serverMb }) => serverMb),
    memoryRow("client's memory, highest", warm, ({ clientMb }) => clientMb),
  ];
}

async function sample(server: Server, child: ChildProcess, until: number): Promise<readonly Sample[]> {
  const channel = createChannel({ address: server.address, credential: KEY });
  const bulk = createClient(BulkService, channel);
  const samples: Sample[] = [];
  while (child.exitCode === null && child.signalCode === null) {
    if (performance.now() > until) child.kill("SIGINT");
    await delay(SAMPLE_MS);
    const reply = await bulk.getImport({ importId: IMPORT_ID }).catch(() => undefined);
    const [serverMb, clientMb] = await Promise.all([residentMb(server.pid), residentMb(child.pid)]);
    if (reply?.import && clientMb > 0) samples.push({ rows: Number(reply.import.rows), serverMb, clientMb });
    else if (reply?.import) samples.push({ ...(samples.at(-1) as Sample), rows: Number(reply.import.rows) });
  }
  channel.close();
  return samples;
}

/** The resident memory of a process; 0 when it is gone. */
async function residentMb(pid: number | undefined): Promise<number> {
  try {
    const { stdout } = await promisify(execFile)("ps", ["-o", "rss=", "-p", `${pid}`]);
    return Number(stdout) / 1_024;
  } catch {
    return 0;
  }
}

function printCourse(samples: readonly Sample[], rows: number): void {
  for (let tenth = 1; tenth <= 10; tenth++) {
    const at = samples.find((each) => each.rows >= (rows * tenth) / 10);
    if (!at) return;
    const { serverMb, clientMb } = at;
    console.log(`${tenth * 10} %: server ${serverMb.toFixed(0)} MiB, client ${clientMb.toFixed(0)} MiB`);
  }
}

function memoryRow(name: string, samples: readonly Sample[], of: (sample: Sample) => number): Row {
  const first = samples[0] ? of(samples[0]) : 0;
  const ours = Math.max(0, ...samples.map(of));
  return {
    name,
    baseline: first,
    ours,
    unit: "MiB",
    target: `≤ ${FLAT_FACTOR} × that of ${WARM_SHARE * 100} %`,
    met: ours <= FLAT_FACTOR * first,
  };
}

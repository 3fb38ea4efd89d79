import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { MeshInfo } from "@licet/cli/mesh/report";
import type { ServiceName } from "@licet/cli/mesh/services";
import { asAdministrator } from "@licet/platform/database/roles";
import { type Channel, createChannel } from "@licet/platform/rpc/client";
import type { TestAuthority } from "@licet/platform/testing/certificates";
import { testServerUrl } from "@licet/platform/testing/database";
import { patient } from "@licet/platform/testing/patient";
import { until } from "@licet/platform/testing/until";

/** A replica takes some seconds to start on a machine with two cores under load. */
const START_WITHIN_MS = 60_000;

/** The name in the certificates of all replicas. */
const TLS_NAME = "mesh.test";

/** A mesh of processes, started as `pnpm mesh` starts it, on the test server's Postgres and free ports. */
export interface TestMesh {
  /** A patient channel over all replicas of a service, as a tenant's role such as `tradsys`, `service`. */
  all(service: ServiceName, tenant: string, role: string): Channel;
  /** A patient channel to one replica, from 1, with any key. */
  one(service: ServiceName, number: number, key: string): Channel;
  key(tenant: string, role: string): string;
  /** Where one replica, from 1, serves HTTP. */
  webUrl(service: ServiceName, number: number): string;
  /** The target of all replicas of a service. */
  address(service: ServiceName): string;
  /** Those that serve. */
  replicas(): readonly { readonly service: ServiceName; readonly number: number }[];
  /** Ends one replica by a signal and waits until the mesh has it serving again. */
  restart(service: ServiceName, number: number, signal: "SIGTERM" | "SIGKILL"): Promise<{ endedAfterMs: number }>;
  /** Runs SQL as administrator in one of its databases, such as `licensing`. */
  sql<T>(database: string, text: string): Promise<T[]>;
  /** Ends it all as Ctrl-C does. */
  stop(): Promise<{ code: number | null; endedAfterMs: number }>;
}

/** How a mesh differs from the simplest one. */
export interface MeshOptions {
  /** Makes gRPC mutual TLS: one certificate for all replicas, one for the channels. */
  readonly authority?: TestAuthority;
  /** Settings beside those that it needs; with KAFKA_BROKERS its events are in that Kafka. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** Starts so many replicas of each service, with the demo data, in databases of their own. */
export async function startMesh(replicas: number, { authority, settings }: MeshOptions = {}): Promise<TestMesh> {
  const dataDir = mkdtempSync(path.join(tmpdir(), "licet-processes-"));
  const prefix = `mesh_${randomBytes(4).toString("hex")}`;
  const child = launch(dataDir, prefix, replicas, {
    ...(authority && tlsSettings(dataDir, authority)),
    ...settings,
  });
  const line = await firstLine(child);
  const { path: file } = JSON.parse(line) as { path: string };
  // It is written anew whenever a replica was replaced.
  const info = (): MeshInfo => JSON.parse(readFileSync(file, "utf8")) as MeshInfo;
  const find = (service: ServiceName, number: number) => {
    const found = info().replicas.find((replica) => replica.service === service && replica.number === number);
    if (found === undefined) throw new Error(`there is no ${service} ${number}`);
    return found;
  };
  const channels: Channel[] = [];
  const open = (address: string, credential: string): Channel => {
    const tls = authority && { ...authority.issue("test"), serverName: TLS_NAME };
    const channel = patient(createChannel({ address, credential, tls }));
    channels.push(channel);
    return channel;
  };
  const key = (tenant: string, role: string): string => {
    const found = info().apiKeys[tenant]?.[role];
    if (found === undefined) throw new Error(`there is no key of ${tenant}'s ${role}`);
    return found;
  };
  const address = (service: ServiceName): string => info().addresses[service] ?? "";
  return {
    key,
    webUrl: (service, number) => find(service, number).webUrl,
    address,
    all: (service, tenant, role) => open(address(service), key(tenant, role)),
    one: (service, number, credential) => open(new URL(find(service, number).grpcUrl).host, credential),
    replicas: () => info().replicas.map(({ service, number }) => ({ service: service as ServiceName, number })),
    async restart(service, number, signal) {
      const { pid } = find(service, number);
      const startedAt = performance.now();
      process.kill(pid, signal);
      await until(`${service} ${number} has ended`, () => !isAlive(pid), { timeoutMs: START_WITHIN_MS });
      const endedAfterMs = performance.now() - startedAt;
      await until(`${service} ${number} serves again`, () => find(service, number).pid !== pid, {
        timeoutMs: START_WITHIN_MS,
      });
      return { endedAfterMs };
    },
    sql: (database, text) => {
      const url = new URL(testServerUrl());
      url.pathname = `/${prefix}_${database}`;
      return asAdministrator(url.href, async (client) => (await client.query(text)).rows);
    },
    async stop() {
      for (const channel of channels) channel.close();
      const startedAt = performance.now();
      const gone = once(child, "exit");
      child.kill("SIGINT");
      const [code] = (await gone) as [number | null];
      const endedAfterMs = performance.now() - startedAt;
      rmSync(dataDir, { recursive: true, force: true });
      await asAdministrator(testServerUrl(), async (client) => {
        for (const name of ["licensing", "metering", "bus"]) {
          await client.query(`DROP DATABASE IF EXISTS "${prefix}_${name}" WITH (FORCE)`);
        }
      });
      return { code, endedAfterMs };
    },
  };
}

/** The settings of mutual TLS, their files in the data folder. */
function tlsSettings(dataDir: string, authority: TestAuthority): Record<string, string> {
  const { ca, cert, key } = authority.issue(TLS_NAME);
  const write = (name: string, content: Buffer): string => {
    const file = path.join(dataDir, name);
    writeFileSync(file, content, { mode: 0o600 });
    return file;
  };
  return {
    GRPC_TLS_CA: write("ca.pem", ca),
    GRPC_TLS_CERT: write("cert.pem", cert),
    GRPC_TLS_KEY: write("key.pem", key),
    GRPC_TLS_NAME: TLS_NAME,
  };
}

function launch(dataDir: string, prefix: string, replicas: number, settings: Record<string, string>): ChildProcess {
  const { KAFKA_BROKERS: _, ...withoutKafka } = process.env;
  const program = fileURLToPath(new URL("../../packages/cli/src/mesh.ts", import.meta.url));
  const args = [
    "--json",
    "--events",
    settings.KAFKA_BROKERS ? "kafka" : "postgres",
    "--free-ports",
    "--replicas",
    String(replicas),
    "--data-dir",
    dataDir,
  ];
  return spawn(process.execPath, ["-C", "licet-src", program, ...args], {
    env: {
      ...withoutKafka,
      DATABASE_URL: testServerUrl(),
      LICET_DATABASE_PREFIX: prefix,
      LICET_LOG_LEVEL: "error",
      ...settings,
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
}

async function firstLine({ stdout }: ChildProcess): Promise<string> {
  if (stdout === null) throw new Error("the mesh has no output");
  for await (const line of createInterface({ input: stdout })) return line;
  throw new Error("the mesh ended before it served");
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

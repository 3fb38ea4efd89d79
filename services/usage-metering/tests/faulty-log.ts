import { connect } from "node:net";
import { UsageLevelsSchema, UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { EventBus } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { createKafkaBus } from "@licet/platform/events/kafka";
import { createKafkaAdmin, createKafkaClient } from "@licet/platform/events/kafka-client";
import { applyTopics } from "@licet/platform/events/kafka-topics";
import { startKafka } from "@licet/platform/local/kafka";
import { createLogger } from "@licet/platform/logging";
import { testServerUrl } from "@licet/platform/testing/database";
import { type FaultProxy, startFaultProxy } from "@licet/platform/testing/proxy";
import { openPostgresLog, throughProxy } from "./harness.ts";

const topics = [UsageTrackedSchema, UsageLevelsSchema].map(topicOf);
const logger = createLogger({ level: "silent", name: "test" });

/** How a log is opened by way of its proxy, by whatever process. */
export type LogPath = { readonly url: string } | { readonly brokers: readonly string[]; readonly proxyPort: number };

/** A log that its users can be cut from. */
export interface FaultyLog {
  readonly proxy: FaultProxy;
  /** @param url of the Postgres log of a suite, as the system role. */
  pathTo(url: string): LogPath;
  stop(): Promise<void>;
}

/** The Postgres log, behind a proxy. */
export async function faultyPostgres(): Promise<FaultyLog> {
  const { hostname, port } = new URL(testServerUrl());
  const proxy = await startFaultProxy({ host: hostname, port: Number(port || 5432) });
  return { proxy, pathTo: (url) => ({ url: throughProxy(url, proxy) }), stop: () => proxy.stop() };
}

/** A Kafka with the topics of usage, behind a proxy. */
export async function faultyKafka(): Promise<FaultyLog> {
  const server = await startKafka();
  const { brokers } = server;
  const admin = createKafkaAdmin(createKafkaClient({ brokers }, "test", logger));
  await admin.ask((client) => applyTopics(client, topics));
  await admin.stop();
  const [host = "", port] = (brokers[0] ?? "").split(":");
  const proxy = await startFaultProxy({ host, port: Number(port) });
  return {
    proxy,
    pathTo: () => ({ brokers, proxyPort: proxy.port }),
    async stop() {
      await proxy.stop();
      await server.stop();
    },
  };
}

/** Opens a log as a service does. */
export function openLog(path: LogPath): Promise<EventBus> {
  if ("url" in path) return openPostgresLog(path.url);
  const { brokers, proxyPort: port } = path;
  // Whatever address the broker tells its clients: all their connections go through the proxy.
  const connection = {
    brokers,
    socketFactory: ({ onConnect }: { onConnect: () => void }) => connect({ host: "127.0.0.1", port }, onConnect),
  };
  return createKafkaBus({ connection, clientId: "test", topics, logger });
}

import type { BusSettings } from "@licet/mesh/settings";
import type { DatabaseServer } from "@licet/standalone/databases";
import type { Secrets } from "@licet/standalone/secrets";

/** The services of a mesh, in the order in which the table shows them. */
export const serviceNames = ["licensing", "validation", "usage-metering", "billing"] as const;

/** Name of a service. */
export type ServiceName = (typeof serviceNames)[number];

/** Ports of one replica. */
export interface Ports {
  readonly grpc: number;
  readonly web: number;
  readonly metrics: number;
}

/** One replica as it is planned, before it runs. */
export interface Plan {
  readonly service: ServiceName;
  /** From 1. */
  readonly number: number;
  readonly ports: Ports;
}

/** The address of all replicas of a service, for `createChannel`: clients balance over them. */
export function addressOf(service: ServiceName, plans: readonly Plan[]): string {
  const own = plans.filter((plan) => plan.service === service);
  return `ipv4:${own.map(({ ports }) => `127.0.0.1:${ports.grpc}`).join(",")}`;
}

/** What all replicas share. */
export interface Shared {
  readonly databases: DatabaseServer;
  readonly secrets: Secrets;
  readonly meshKey: string;
  readonly bus: BusSettings;
  /** The cache that replicas of validation share; undefined: none. */
  readonly redisUrl: string | undefined;
  readonly plans: readonly Plan[];
}

/** The settings of a replica. It gets what it needs: no administrator's URL, and each service its own database only. */
export function environmentOf({ service, ports }: Plan, shared: Shared): Record<string, string> {
  const { databases, secrets, meshKey, bus, redisUrl, plans } = shared;
  const { masterKeys, currentMasterKey } = secrets;
  const current = (id: string) => (id === currentMasterKey ? 0 : 1);
  const keys = [...masterKeys].sort((a, b) => current(a.id) - current(b.id));
  const common = {
    LICET_HOST: "127.0.0.1",
    GRPC_PORT: String(ports.grpc),
    WEB_PORT: String(ports.web),
    METRICS_PORT: String(ports.metrics),
    MESH_KEY: meshKey,
    ...(bus.KAFKA_BROKERS && { KAFKA_BROKERS: bus.KAFKA_BROKERS.join(",") }),
    ...(bus.EVENT_LOG_URL && { EVENT_LOG_URL: bus.EVENT_LOG_URL }),
  };
  const database = (name: "licensing" | "metering") => ({
    DATABASE_APP_URL: databases.url(name, "licet_app"),
    DATABASE_SYSTEM_URL: databases.url(name, "licet_system"),
  });
  const licensing = { LICENSING_ADDRESS: addressOf("licensing", plans) };
  const metering = { METERING_ADDRESS: addressOf("usage-metering", plans) };
  switch (service) {
    case "licensing":
      return {
        ...common,
        ...database("licensing"),
        MASTER_KEYS: keys.map(({ id, key }) => `${id}:${Buffer.from(key).toString("base64")}`).join(","),
      };
    case "validation":
      return { ...common, ...licensing, ...metering, ...(redisUrl !== undefined && { REDIS_URL: redisUrl }) };
    case "usage-metering":
      return { ...common, ...licensing, ...database("metering") };
    case "billing":
      return { ...common, ...licensing, ...metering };
  }
}

import { describe, expect, test } from "@jest/globals";
import { generateApiKey } from "@licet/platform/credentials";
import { z } from "zod";
import { readSettings } from "./process.ts";
import { address, databaseConfig, databaseSettings } from "./settings.ts";

const good = { MESH_KEY: "k".repeat(43), EVENT_LOG_URL: "postgres://licet_system:s3cret@db/licet_bus" };

describe("settings of a process", () => {
  test("have working defaults for everything but where the data is and the mesh's key", () => {
    const { common } = readSettings(z.object({}), good);
    expect(common).toMatchObject({ GRPC_PORT: 9090, WEB_PORT: 8080, METRICS_PORT: 9464, LICET_HOST: "127.0.0.1" });
  });

  test("are refused all at once, common and own ones, each problem once and no value shown", () => {
    const own = databaseSettings.safeExtend({ LICENSING_ADDRESS: address("where") });
    const env = {
      GRPC_PORT: "70000",
      MESH_KEY: "short-secret",
      GRPC_TLS_CERT: "cert.pem",
      LICENSING_ADDRESS: "nowhere",
      LICET_DATABASE_PREFIX: "No-Prefix",
    };
    const attempt = () => readSettings(own, env);
    expect(attempt).toThrow(/GRPC_PORT: is too large; it should be a whole number from 0 to 65535/);
    expect(attempt).toThrow(/MESH_KEY: is no mesh key; it should be 32 to 512 random characters/);
    expect(attempt).toThrow(/EVENT_LOG_URL: is missing/);
    expect(attempt).toThrow(/GRPC_TLS_CA: is missing; it should be .*GRPC_TLS_CERT and GRPC_TLS_KEY or none/);
    expect(attempt).toThrow(/LICENSING_ADDRESS: is no address; it should be `host:port`/);
    expect(attempt).toThrow(/DATABASE_APP_URL: /);
    expect(attempt).not.toThrow(/short-secret/);
    expect(attempt).not.toThrow(/LICET_DATABASE_PREFIX(.|\n)*LICET_DATABASE_PREFIX/);
  });

  test("don't take an API key for the mesh's key", () => {
    const env = { ...good, MESH_KEY: generateApiKey().key };
    expect(() => readSettings(z.object({}), env)).toThrow(/MESH_KEY: has the form of an API key/);
  });
});

describe("databaseConfig", () => {
  test("takes the roles' own URLs, and derives them from the administrator's where they are not given", () => {
    const own = { DATABASE_APP_URL: "postgres://a:x@db/l", DATABASE_SYSTEM_URL: "postgres://s:x@db/l" };
    expect(databaseConfig(databaseSettings.parse(own), "licensing")).toEqual({
      database: { appUrl: own.DATABASE_APP_URL, systemUrl: own.DATABASE_SYSTEM_URL },
      maxConnections: 8,
    });
    const derived = databaseConfig(databaseSettings.parse({ DATABASE_URL: "postgres://admin:pw@db:5432" }), "metering");
    expect(derived.database.appUrl).toMatch(/^postgres:\/\/licet_app:[\w-]+@db:5432\/licet_metering$/);
    expect(derived.database.systemUrl).toMatch(/^postgres:\/\/licet_system:[\w-]+@db:5432\/licet_metering$/);
  });
});

import { createHash } from "node:crypto";
import { Redis } from "ioredis";
import type { Logger } from "../logging.ts";
import { meter } from "../telemetry.ts";
import type { SharedCache, SharedValue } from "./shared-cache.ts";

/** How long, in milliseconds, a value stays without being put again: a backstop, the versions are what keeps it right. */
const TTL_MS = 3_600_000;
/** How long, in milliseconds, an answer of Redis may take. */
const COMMAND_TIMEOUT_MS = 50;
/** For how long, in milliseconds, Redis is left alone after it failed: one that is frozen must not slow down every call. */
const REST_MS = 1_000;
/** The longest pause, in milliseconds, between attempts to reconnect. */
const MAX_RECONNECT_MS = 2_000;
/** As many digits as the largest version (int64) and moment have, so that their texts compare as their numbers do. */
const VERSION_DIGITS = 19;
const MOMENT_DIGITS = 16;

/**
 * Compares and sets in one step: version, moment, checksum, bytes, lifetime. Numbers of Lua are doubles and too small
 * for versions, so texts of fixed length are compared; what has another length is damaged, and replaced.
 */
const putScript = `
local version, moment = unpack(redis.call('HMGET', KEYS[1], 'version', 'moment'))
if version and moment and #version == #ARGV[1] and #moment == #ARGV[2] then
  if version > ARGV[1] or (version == ARGV[1] and moment >= ARGV[2]) then return 0 end
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'moment', ARGV[2], 'checksum', ARGV[3], 'bytes', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
`;

/** What {@link createRedisCache} needs. */
export interface RedisCacheOptions {
  /** Such as `redis://:password@localhost:6379/0`, or `rediss:` for TLS. */
  readonly url: string;
  /** Begins every key, such as `licet:entitlements:v1:`; another format needs another one. */
  readonly prefix: string;
  readonly logger: Logger;
  /** How long, in milliseconds, an answer of Redis may take; 50 when absent. */
  readonly commandTimeoutMs?: number;
}

/**
 * Creates a shared cache in Redis. It need not be there: connecting goes on in the background, and a call is neither
 * queued nor repeated. Values are checked against their key, version and moment when they are read.
 */
export function createRedisCache(options: RedisCacheOptions): SharedCache {
  const { url, prefix, logger, commandTimeoutMs = COMMAND_TIMEOUT_MS } = options;
  const redis = new Redis(url, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    commandTimeout: commandTimeoutMs,
    autoResendUnfulfilledCommands: false,
    connectTimeout: 1_000,
    retryStrategy: (attempts) => Math.min(attempts * 100, MAX_RECONNECT_MS),
  });
  watch(redis, logger);
  const requests = meter("licet.platform").createCounter("shared_cache_requests_total", {
    description: "Requests to the shared cache, by operation and outcome",
  });
  let restUntilMs = 0;

  /** Runs one command; undefined where it fails. */
  const attempt = async <T>(operation: string, command: () => Promise<T>): Promise<T | undefined> => {
    if (redis.status !== "ready" || performance.now() < restUntilMs) {
      requests.add(1, { operation, outcome: "away" });
      return undefined;
    }
    try {
      const result = await command();
      requests.add(1, { operation, outcome: "answered" });
      return result;
    } catch (error) {
      restUntilMs = performance.now() + REST_MS;
      requests.add(1, { operation, outcome: "failed" });
      logger.warn({ err: error, operation }, "the shared cache did not answer; it is left alone for a moment");
      return undefined;
    }
  };

  return {
    async get(key) {
      const fields = await attempt("get", () =>
        redis.hmgetBuffer(prefix + key, "version", "moment", "checksum", "bytes"),
      );
      if (fields === undefined || fields.every((field) => field === null)) return undefined;
      const value = read(key, fields);
      if (value === undefined) {
        logger.warn({}, "the shared cache held a damaged value; it is removed");
        await attempt("remove", () => redis.unlink(prefix + key));
      }
      return value;
    },
    async put(key, { version, readAtMs, bytes }) {
      const head = [digits(version, VERSION_DIGITS), digits(readAtMs, MOMENT_DIGITS)] as const;
      const tail = [checksum(key, head, bytes), Buffer.from(bytes), TTL_MS] as const;
      await attempt("put", () => redis.eval(putScript, 1, prefix + key, ...head, ...tail));
    },
    async stop() {
      redis.disconnect();
    },
  };
}

/** Says once that Redis is away, and once that it is back. */
function watch(redis: Redis, logger: Logger): void {
  let away = false;
  redis.on("error", (error) => {
    if (!away) logger.warn({ err: error }, "the shared cache can't be reached; answers come without it, and slower");
    away = true;
  });
  redis.on("ready", () => {
    if (away) logger.info({}, "the shared cache is back");
    away = false;
  });
}

function read(key: string, fields: readonly (Buffer | null)[]): SharedValue | undefined {
  const [version, moment, sum, bytes] = fields;
  if (!version || !moment || !sum || !bytes) return undefined;
  const head = [version.toString("latin1"), moment.toString("latin1")] as const;
  if (sum.toString("latin1") !== checksum(key, head, bytes)) return undefined;
  return { version: BigInt(head[0]), readAtMs: Number(head[1]), bytes };
}

/** Of everything that a reader relies on. It finds damage and mix-ups; it is no signature. */
function checksum(key: string, head: readonly [version: string, moment: string], bytes: Uint8Array): string {
  return createHash("sha256")
    .update(JSON.stringify([key, ...head]))
    .update(bytes)
    .digest("base64url");
}

function digits(number: bigint | number, length: number): string {
  return number.toString().padStart(length, "0");
}

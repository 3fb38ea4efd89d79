import { describe, test } from "@jest/globals";
import { type RedisServer, startRedis as startServer, whyNoRedis } from "../local/redis.ts";

/** A Redis of a test's own, in memory, that can be made to fail. */
export interface TestRedis {
  readonly url: string;
  /** Stops it in the midst of whatever it does, connections open; `thaw` lets it go on. */
  freeze(): void;
  thaw(): void;
  /** Ends it by SIGKILL, unless it has ended. */
  kill(): Promise<void>;
  /** Starts it again, empty, on the same port. */
  restart(): Promise<void>;
}

/**
 * Runs cases that need Redis; says plainly when they are skipped.
 *
 * @param needs `any`: the Redis of `REDIS_URL` will do; `own`: one that the cases may kill.
 */
export function describeRedis(name: string, needs: "any" | "own", cases: () => void): void {
  const wanted = `a redis-server in the PATH${needs === "any" ? ", or REDIS_URL" : ""}`;
  if (whyNoRedis() === undefined || (needs === "any" && process.env.REDIS_URL !== undefined)) {
    describe(name, cases);
  } else if ((process.env.LICET_REQUIRE ?? "").split(",").includes("redis")) {
    test(name, () => {
      throw new Error(`LICET_REQUIRE names redis, but the cases need ${wanted}`);
    });
  } else {
    describe.skip(`${name} (SKIPPED: needs ${wanted})`, cases);
  }
}

/** Starts a Redis on a free port. */
export async function startRedis(): Promise<TestRedis> {
  let server: RedisServer | undefined = await startServer();
  const { url } = server;
  const signal = (name: NodeJS.Signals): void => {
    if (server !== undefined) process.kill(server.pid, name);
  };
  return {
    url,
    freeze: () => signal("SIGSTOP"),
    thaw: () => signal("SIGCONT"),
    async kill() {
      signal("SIGKILL");
      await server?.stop();
      server = undefined;
    },
    async restart() {
      server = await startServer({ port: Number(new URL(url).port) });
    },
  };
}

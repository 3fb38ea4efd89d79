import { describe, test } from "@jest/globals";
import { whyNoRedis } from "../local/redis.ts";

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

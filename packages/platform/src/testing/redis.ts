import { whyNoRedis } from "../local/redis.ts";
import { describeWith } from "./needs.ts";

/**
 * Runs cases that need Redis; says plainly when they are skipped.
 *
 * @param needs `any`: the Redis of `REDIS_URL` will do; `own`: one that the cases may kill.
 */
export function describeRedis(name: string, needs: "any" | "own", cases: () => void): void {
  const given = needs === "any" && process.env.REDIS_URL !== undefined;
  describeWith("redis", given ? undefined : whyNoRedis(), name, cases);
}

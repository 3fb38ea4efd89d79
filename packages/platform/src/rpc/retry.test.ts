import { describe, expect, test } from "@jest/globals";
import { platformError } from "../errors.ts";
import { createRetrier } from "./retry.ts";

const unavailable = platformError("DEPENDENCY_UNAVAILABLE", "down", { retryAfterMs: 0 });
const noPause = () => 0;
const far = () => Date.now() + 60_000;

/** An attempt that fails `times` times and counts. */
function failing(times: number, error: Error = unavailable) {
  const attempt = {
    made: 0,
    run: async () => {
      attempt.made++;
      if (attempt.made <= times) throw error;
      return "done";
    },
  };
  return attempt;
}

describe("a failed attempt", () => {
  test("is repeated up to three times", async () => {
    const attempt = failing(3);
    await expect(createRetrier(noPause).run(attempt.run, far(), undefined)).resolves.toBe("done");
    expect(attempt.made).toBe(4);
    const hopeless = failing(100);
    await expect(createRetrier(noPause).run(hopeless.run, far(), undefined)).rejects.toBe(unavailable);
    expect(hopeless.made).toBe(4);
  });

  test("is not repeated when it failed for another reason", async () => {
    for (const error of [platformError("CONFLICT_RETRY", "busy"), new Error("bug")]) {
      const attempt = failing(1, error);
      await expect(createRetrier(noPause).run(attempt.run, far(), undefined)).rejects.toBe(error);
      expect(attempt.made).toBe(1);
    }
  });

  test("is not repeated when the pause would outlast the deadline", async () => {
    const attempt = failing(1, platformError("OVERLOADED", "full", { retryAfterMs: 5_000 }));
    await expect(createRetrier(noPause).run(attempt.run, Date.now() + 1_000, undefined)).rejects.toBeDefined();
    expect(attempt.made).toBe(1);
  });

  test("is repeated at once when its caller leaves, to report that", async () => {
    const controller = new AbortController();
    const attempt = failing(1, platformError("OVERLOADED", "full", { retryAfterMs: 30_000 }));
    const run = createRetrier(noPause).run(attempt.run, far(), controller.signal);
    controller.abort();
    await expect(run).resolves.toBe("done");
  });
});

test("while all calls fail, one in ten is repeated once the budget is spent", async () => {
  const retrier = createRetrier(noPause);
  const repeated = async (calls: number) => {
    const attempt = failing(Number.POSITIVE_INFINITY);
    for (let i = 0; i < calls; i++) await retrier.run(attempt.run, far(), undefined).catch(() => {});
    return attempt.made - calls;
  };
  expect(await repeated(1_000)).toBeLessThanOrEqual(1_100);
  expect(await repeated(1_000)).toBe(100);
});

test("what was saved up is not spent on a server that is overloaded", async () => {
  const retrier = createRetrier(noPause);
  const attempt = failing(Number.POSITIVE_INFINITY, platformError("OVERLOADED", "full", { retryAfterMs: 0 }));
  for (let i = 0; i < 1_000; i++) await retrier.run(attempt.run, far(), undefined).catch(() => {});
  expect(attempt.made - 1_000).toBeGreaterThanOrEqual(100);
  expect(attempt.made - 1_000).toBeLessThanOrEqual(110);
});

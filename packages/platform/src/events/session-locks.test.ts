import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import { roles } from "../database/roles.ts";
import { createLogger } from "../logging.ts";
import { createTestDatabase, type TestDatabase } from "../testing/database.ts";
import { type FaultProxy, startFaultProxy } from "../testing/proxy.ts";
import { createSessionLocks, type HeldLock, type SessionLocks } from "./session-locks.ts";

const logger = createLogger({ level: "silent", name: "session-locks-test" });
const never = new AbortController().signal;

describe("session locks", () => {
  let database: TestDatabase<unknown>;
  const opened: { locks: SessionLocks; proxy: FaultProxy }[] = [];

  beforeAll(async () => {
    database = await createTestDatabase({ name: "locks" });
  });
  afterEach(async () => {
    for (const { locks, proxy } of opened.splice(0)) {
      proxy.restore();
      await locks.stop();
      await proxy.stop();
    }
  });
  afterAll(() => database.drop());

  /** Locks as another process would hold them. */
  async function open(): Promise<{ locks: SessionLocks; proxy: FaultProxy }> {
    const url = new URL(database.url(roles.system));
    const proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port) });
    url.host = `127.0.0.1:${proxy.port}`;
    const one = { locks: createSessionLocks({ url: url.href, applicationName: "locks", logger }), proxy };
    opened.push(one);
    return one;
  }

  async function held(lock: Promise<HeldLock | undefined>): Promise<HeldLock> {
    const found = await lock;
    if (found === undefined) throw new Error("the lock was not given");
    return found;
  }

  test("give each name to one holder at a time", async () => {
    const [{ locks: one }, { locks: other }] = [await open(), await open()];
    let holders = 0;
    let most = 0;
    const useOnce = async (locks: SessionLocks): Promise<void> => {
      const lock = await held(locks.acquire("a", never));
      most = Math.max(most, ++holders);
      await new Promise(setImmediate);
      holders--;
      await lock.release();
    };
    await Promise.all([one, other, one, other, one].map(useOnce));
    expect(most).toBe(1);
    const [a, b] = await Promise.all([held(one.acquire("a", never)), held(other.acquire("b", never))]);
    expect([a.signal.aborted, b.signal.aborted]).toEqual([false, false]);
  });

  test("pass on when the connection breaks, and tell the holder", async () => {
    const [{ locks: one, proxy }, { locks: other }] = [await open(), await open()];
    const lost = await held(one.acquire("c", never));
    const waiting = other.acquire("c", never);
    proxy.cut();
    await held(waiting);
    expect(lost.signal.aborted).toBe(true);
    // What is lost can be released without harm, and got again later.
    await lost.release();
    proxy.restore();
    const again = await held(one.acquire("d", never));
    expect(again.signal.aborted).toBe(false);
  });

  test("pass on when the holder stands still, who hears of it", async () => {
    const [{ locks: one, proxy }, { locks: other }] = [await open(), await open()];
    const lost = await held(one.acquire("e", never));
    const told = new Promise((resolve) => lost.signal.addEventListener("abort", resolve));
    proxy.freeze();
    await held(other.acquire("e", never));
    await told;
  });

  test("stop waiting when the caller gives up or the locks stop", async () => {
    const [{ locks: one }, { locks: other }] = [await open(), await open()];
    await held(one.acquire("f", never));
    const giving = new AbortController();
    const first = other.acquire("f", giving.signal);
    const second = other.acquire("f", never);
    giving.abort();
    expect(await first).toBeUndefined();
    await other.stop();
    expect(await second).toBeUndefined();
    expect(await other.acquire("f", never)).toBeUndefined();
  });
});

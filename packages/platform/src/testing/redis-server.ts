import { type RedisServer, startRedis as startServer } from "../local/redis.ts";

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

import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/**
 * Below the ports that Linux (32768 to 60999) and macOS (from 49152) give to outgoing connections: one of those could
 * be taken between being found free and being listened on.
 */
const FIRST = 12_000;
const LAST = 31_999;
/** Neighbouring process ids begin this far apart, so processes that search at the same time find different ports. */
const STRIDE = 97;

let next = (process.pid * STRIDE) % (LAST - FIRST + 1);

/**
 * Finds TCP ports of 127.0.0.1 that nobody listens on, all different, also from those of earlier calls of this process.
 * For a server that must know its port before it listens; one that needn't should listen on port 0.
 *
 * @throws {Error} when there are fewer than `count` free ports between 12000 and 31999.
 */
export async function findFreePorts(count: number): Promise<number[]> {
  const found: number[] = [];
  for (let tried = 0; found.length < count; tried++) {
    if (tried > LAST - FIRST) throw new Error(`there are no ${count} free TCP ports between ${FIRST} and ${LAST}`);
    const port = FIRST + next;
    next = (next + 1) % (LAST - FIRST + 1);
    if (await isPortFree(port)) found.push(port);
  }
  return found;
}

/** As {@link findFreePorts}, one port. */
export async function findFreePort(): Promise<number> {
  const [port] = await findFreePorts(1);
  if (port === undefined) throw new Error("findFreePorts returned nothing");
  return port;
}

async function isPortFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await once(server.listen({ host: "127.0.0.1", port }), "listening");
  } catch {
    return false;
  }
  server.close();
  await once(server, "close");
  return true;
}

/**
 * Whether nobody listens on a TCP port of 127.0.0.1, or ends to within so many milliseconds: a process that was killed
 * has lost its command line, by which it is looked for, before the system has closed its sockets.
 */
export async function becomesPortFree(port: number, withinMs: number): Promise<boolean> {
  for (const giveUpAt = performance.now() + withinMs; !(await isPortFree(port)); await delay(20)) {
    if (performance.now() > giveUpAt) return false;
  }
  return true;
}

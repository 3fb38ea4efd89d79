import { once } from "node:events";
import { createServer, type Server } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/**
 * Below the ports that Linux (32768 to 60999) and macOS (from 49152) give to outgoing connections: one of those could
 * be taken between being found free and being listened on.
 */
const BLOCKS = { first: 16_000, size: 100, count: 160 };
/** What {@link findFreePort} looks through, below the blocks. */
const SINGLE = { first: 12_000, count: 4_000 };
/** Neighbouring process ids begin this far apart, so that processes that search at the same time seldom look at the same. */
const STRIDE = 97;

let nextSingle = (process.pid * STRIDE) % SINGLE.count;
let nextBlock = (process.pid * STRIDE) % BLOCKS.count;
let left: number[] = [];
/** One caller at a time takes from the ports that are left. */
let turn: Promise<unknown> = Promise.resolve();

/**
 * Finds TCP ports of 127.0.0.1 that nobody listens on, all different, also from those of earlier calls of this process.
 * For servers that must know their ports long before they listen; one that needn't should listen on port 0.
 *
 * They come from blocks of a hundred, of which a process keeps the first port by listening on it for as long as it lives:
 * so what another process finds at the same time lies elsewhere.
 *
 * @throws {Error} when every block between 16000 and 31999 is somebody else's.
 */
export function findFreePorts(count: number): Promise<number[]> {
  const found = turn.then(async () => {
    const ports: number[] = [];
    while (ports.length < count) {
      const port = left.shift();
      if (port === undefined) left = await claimBlock();
      else if (await isPortFree(port)) ports.push(port);
    }
    return ports;
  });
  turn = found.catch(() => undefined);
  return found;
}

async function claimBlock(): Promise<number[]> {
  for (let tried = 0; tried < BLOCKS.count; tried++) {
    const first = BLOCKS.first + nextBlock * BLOCKS.size;
    nextBlock = (nextBlock + 1) % BLOCKS.count;
    const claim = await listen(first);
    if (claim === undefined) continue;
    claim.unref();
    return Array.from({ length: BLOCKS.size - 1 }, (_, index) => first + 1 + index);
  }
  throw new Error(`every block of ports from ${BLOCKS.first} on is taken: ${BLOCKS.count} processes hold one`);
}

/**
 * Finds one TCP port of 127.0.0.1 that nobody listens on. Another process may find it too: for a server that takes another
 * one then.
 *
 * @throws {Error} when there is none between 12000 and 15999.
 */
export async function findFreePort(): Promise<number> {
  for (let tried = 0; tried < SINGLE.count; tried++) {
    const port = SINGLE.first + nextSingle;
    nextSingle = (nextSingle + 1) % SINGLE.count;
    if (await isPortFree(port)) return port;
  }
  throw new Error(`there is no free TCP port from ${SINGLE.first} to ${SINGLE.first + SINGLE.count - 1}`);
}

async function isPortFree(port: number): Promise<boolean> {
  const server = await listen(port);
  if (server === undefined) return false;
  server.close();
  await once(server, "close");
  return true;
}

/** Listens on a port of 127.0.0.1, and talks to nobody; undefined where somebody listens. */
async function listen(port: number): Promise<Server | undefined> {
  const server = createServer((socket) => socket.destroy());
  return once(server.listen({ host: "127.0.0.1", port }), "listening").then(
    () => server,
    () => undefined,
  );
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

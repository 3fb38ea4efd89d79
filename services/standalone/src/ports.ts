import { once } from "node:events";
import { createServer } from "node:net";

/** A port that Licet wants, and the flag that chooses it. */
export interface WantedPort {
  readonly flag: string;
  /** 0 takes a free one. */
  readonly port: number;
}

/**
 * Finds out at once, before databases are started and data is loaded, whether the ports can be had.
 * @throws Error in one sentence that names the port and its flag.
 */
export async function checkPorts(host: string, wanted: readonly WantedPort[]): Promise<void> {
  for (const { flag, port } of wanted) {
    if (port === 0) continue;
    const server = createServer();
    try {
      await once(server.listen({ host, port, exclusive: true }), "listening");
    } catch (error) {
      throw portError(host, port, flag, error as NodeJS.ErrnoException);
    }
    server.close();
    await once(server, "close");
  }
}

function portError(host: string, port: number, flag: string, cause: NodeJS.ErrnoException): Error {
  if (cause.code === "EADDRINUSE") {
    return new Error(`port ${port} is in use: stop the program that has it, or choose another with ${flag}`, { cause });
  }
  if (cause.code === "EACCES") {
    return new Error(`port ${port} may not be used by this user: choose one above 1023 with ${flag}`, { cause });
  }
  return new Error(`cannot listen on ${host}:${port} (${cause.message}): check LICET_HOST and ${flag}`, { cause });
}

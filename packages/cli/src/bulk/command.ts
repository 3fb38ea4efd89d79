import { once } from "node:events";
import { createClient } from "@connectrpc/connect";
import { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { createChannel } from "@licet/platform/rpc/client";
import { createProgress, type Progress } from "./progress.ts";

/** The exit code of a program that Ctrl-C ended. */
const INTERRUPTED = 130;

/** What a tenant's command works with. */
export interface Session {
  readonly bulk: ReturnType<typeof clientsOf>["bulk"];
  readonly licenses: ReturnType<typeof clientsOf>["licenses"];
  readonly progress: Progress;
  /** Aborts at Ctrl-C: what is under way is finished, nothing else is begun. */
  readonly signal: AbortSignal;
  /** Writes to the standard output; resolves when it takes more. */
  print(text: string | Uint8Array): Promise<void>;
}

/** A command that acts as a tenant. */
export interface TenantCommand {
  readonly usage: string;
  /** @returns whether everything that was asked for was done */
  run(session: Session, args: readonly string[]): Promise<boolean>;
}

/**
 * Runs a command against the Licet that the environment names: LICET_GRPC_URL, and LICET_API_KEY, which is in no argument
 * because other users of the machine can read those.
 *
 * @returns the exit code
 */
export async function runTenantCommand(command: TenantCommand, args: readonly string[]): Promise<number> {
  if (args.length === 0 || args.includes("--help")) {
    process.stdout.write(command.usage);
    return args.length === 0 ? 1 : 0;
  }
  const { LICET_GRPC_URL: url = "http://127.0.0.1:9090", LICET_API_KEY: credential = "" } = process.env;
  if (credential === "") throw new Error("LICET_API_KEY is missing: it is the API key of the tenant");
  const channel = createChannel({ ...addressOf(url), credential });
  const stopping = new AbortController();
  process.once("SIGINT", () => stopping.abort(new Error("interrupted")));
  // Whoever reads the output has seen enough, as in `| head`.
  process.stdout.once("error", (error) => stopping.abort(error));
  const progress = createProgress(process.stderr);
  try {
    const session: Session = {
      ...clientsOf(channel),
      progress,
      signal: stopping.signal,
      print: async (text) => {
        if (!process.stdout.write(text)) await once(process.stdout, "drain", { signal: stopping.signal });
      },
    };
    const done = await command.run(session, args);
    if (stopping.signal.aborted) return INTERRUPTED;
    return done ? 0 : 1;
  } finally {
    progress.end();
    channel.close();
  }
}

function clientsOf(channel: ReturnType<typeof createChannel>) {
  return { bulk: createClient(BulkService, channel), licenses: createClient(LicensingService, channel) };
}

function addressOf(text: string): { address: string; tls: boolean } {
  if (!URL.canParse(text)) throw new Error(`LICET_GRPC_URL: ${JSON.stringify(text)} is no URL`);
  const url = new URL(text);
  if (url.protocol === "http:" || url.protocol === "https:") {
    const tls = url.protocol === "https:";
    return { address: url.port === "" ? `${url.hostname}:${tls ? 443 : 80}` : url.host, tls };
  }
  throw new Error(`LICET_GRPC_URL: ${JSON.stringify(text)} should begin with http:// or https://`);
}

/** Opens many streams on bare node:http2 and keeps them; `held.ts` starts it. */
import { once } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { serveParent } from "./child.ts";
import { frame } from "./unary-call.ts";

/** Streams to be opened, beside those that are. */
export interface OpenRequest {
  readonly port: number;
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly credential: string;
  /** The first message of each, in turn, base64. */
  readonly bodies: readonly string[];
  /** Whether it is the only one. */
  readonly endsInput: boolean;
  readonly streams: number;
}

/** What the generator is asked to do: that, or to read nothing any more, or to tell, or to give all streams up. */
export type HeldRequest = OpenRequest | "pause" | "report" | "close";

/** Where it stands. */
export interface HeldReport {
  /** Streams that are open and have brought something. */
  readonly open: number;
  readonly connections: number;
  /** How the first one ended that the generator did not end: its `grpc-status` and message. */
  readonly ended: string | undefined;
}

/** As many as a connection to our server may have. */
const STREAMS_PER_CONNECTION = 1_000;
/** How many are opened at once. */
const AT_ONCE = 250;
/** What a stream may bring that is not read, in bytes: little, so that it waits in the server. */
const WINDOW_BYTES = 16_384;
/** What a connection may hold in memory, in MB: as much as all its streams may bring. */
const SESSION_MEMORY_MB = 100;

let sessions: ClientHttp2Session[] = [];
let streams = new Set<ClientHttp2Stream>();
let ended: string | undefined;

async function openAll(request: OpenRequest): Promise<void> {
  const { port, streams: wanted } = request;
  const needed = Math.ceil(wanted / STREAMS_PER_CONNECTION);
  sessions = Array.from({ length: needed }, () =>
    connect(`http://127.0.0.1:${port}`, {
      settings: { initialWindowSize: WINDOW_BYTES },
      maxSessionMemory: SESSION_MEMORY_MB,
    }),
  );
  await Promise.all(sessions.map((session) => once(session, "connect")));
  for (let index = 0; index < wanted; index += AT_ONCE) {
    const some = Array.from({ length: Math.min(AT_ONCE, wanted - index) }, (_, place) =>
      openOne(request, index + place),
    );
    await Promise.all(some);
  }
}

/** Resolves once it has brought something, or has ended. */
function openOne({ path, credential, bodies, endsInput }: OpenRequest, index: number): Promise<void> {
  const session = sessions[index % sessions.length];
  if (session === undefined) throw new Error("there is no connection");
  const stream = session.request(
    {
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      authorization: `Bearer ${credential}`,
    },
    { endStream: false },
  );
  const body = frame(Buffer.from(bodies[index % bodies.length] ?? "", "base64"));
  if (endsInput) stream.end(body);
  else stream.write(body);
  const failed = (how: string): void => {
    if (streams.delete(stream)) ended ??= how;
  };
  stream.on("error", ({ message }) => failed(message));
  for (const event of ["response", "trailers"] as const) {
    stream.on(event, ({ "grpc-status": status, "grpc-message": message }) => {
      if (status !== undefined) failed(`${status} ${message}`);
    });
  }
  streams.add(stream);
  return new Promise((resolve) => {
    stream.once("data", () => resolve());
    stream.once("close", () => {
      failed("closed");
      resolve();
    });
    stream.resume();
  });
}

function closeAll(): void {
  // They are not missed: how they end is known.
  streams = new Set();
  for (const session of sessions) session.destroy();
  sessions = [];
}

serveParent(async (message): Promise<HeldReport> => {
  const request = message as HeldRequest;
  if (request === "close") closeAll();
  else if (request === "pause") for (const stream of streams) stream.pause();
  else if (request !== "report") await openAll(request);
  return { open: streams.size, connections: sessions.length, ended };
});

import { open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { BulkKind } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import type { Session, TenantCommand } from "../bulk/command.ts";
import { formatOf, kindOf, selectionFlags, selectionOf } from "../bulk/flags.ts";
import { createPatience } from "../bulk/patience.ts";
import { count } from "../bulk/progress.ts";

const USAGE = `Writes customers or licenses to a file.

Usage: licet export customers|licenses [flags]

  --out FILE              the file; the standard output where nothing is said.
                          What was cut off leaves FILE.part, and the same
                          command goes on with it
  --format csv|jsonl      as the name of the file ends where nothing is said

Licenses only, each narrows the choice:
  --product P --plan P --plan-version N...  --status active...
  --customer ID...  --license ID...

LICET_API_KEY is the tenant's API key, LICET_GRPC_URL says where Licet is
(http://127.0.0.1:9090).
`;

/** Writes an export. */
export const exportCommand: TenantCommand = {
  usage: USAGE,
  async run(session, args) {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { out: { type: "string" }, format: { type: "string" }, ...selectionFlags },
    });
    const [word, ...more] = positionals;
    if (more.length > 0) throw new Error("what else? `licet export --help` says what it takes");
    const kind = kindOf(word);
    const { out, format, ...selected } = values;
    const wanted = {
      kind,
      format: formatOf(format, out),
      ...(kind === BulkKind.LICENSES || Object.keys(selected).length > 0 ? { selection: selectionOf(selected) } : {}),
    };
    const sink = out === undefined ? standardOutput(session) : await partOf(out, wanted);
    try {
      const whole = await receive(session, wanted, sink);
      if (!whole) return false;
      await sink.finish();
      session.progress.end();
      process.stderr.write(`${count(sink.rows())} ${word}${out === undefined ? "" : ` in ${out}`}\n`);
      return true;
    } finally {
      await sink.close();
    }
  },
};

/** Where an export goes, and what of it is there already. */
interface Sink {
  /** Where it goes on; empty: at the beginning. */
  token(): string;
  rows(): number;
  write(data: Uint8Array, token: string, rows: number): Promise<void>;
  finish(): Promise<void>;
  close(): Promise<void>;
}

type Wanted = Parameters<Session["bulk"]["export"]>[0];

/** Takes the export until its end or Ctrl-C; a stream that breaks is begun again behind what was written. */
async function receive({ bulk, progress, signal }: Session, wanted: Wanted, sink: Sink): Promise<boolean> {
  const patience = createPatience();
  while (!signal.aborted) {
    try {
      for await (const message of bulk.export({ ...wanted, resumeToken: sink.token() }, { signal })) {
        await sink.write(message.data, message.resumeToken, message.rows);
        patience.headway();
        progress.show(`${count(sink.rows())} rows`);
      }
      return !signal.aborted;
    } catch (error) {
      if (!signal.aborted) await patience.bear(error);
    }
  }
  process.stderr.write("\nStopped; the same command goes on from here.\n");
  return false;
}

function standardOutput({ print }: Session): Sink {
  let token = "";
  let rows = 0;
  return {
    token: () => token,
    rows: () => rows,
    async write(data, next, more) {
      await print(data);
      token = next;
      rows += more;
    },
    finish: async () => undefined,
    close: async () => undefined,
  };
}

/** How far a file is whose export was cut off. */
interface Part {
  readonly wanted: string;
  readonly token: string;
  readonly bytes: number;
  readonly rows: number;
}

/** A file that gets its name when it is whole. Beside it lies how much of it counts, and where it goes on. */
async function partOf(file: string, wanted: unknown): Promise<Sink> {
  const part = `${file}.part`;
  const note = `${part}.json`;
  const identity = JSON.stringify(wanted);
  const known = await readPart(note);
  let state: Part = known?.wanted === identity ? known : { wanted: identity, token: "", bytes: 0, rows: 0 };
  const handle = await open(part, state.bytes === 0 ? "w" : "r+");
  // Behind the note may be what was written and not noted.
  await handle.truncate(state.bytes);
  return {
    token: () => state.token,
    rows: () => state.rows,
    async write(data, token, rows) {
      await handle.write(data, 0, data.length, state.bytes);
      state = { ...state, token, bytes: state.bytes + data.length, rows: state.rows + rows };
      await writeFile(`${note}.new`, JSON.stringify(state));
      await rename(`${note}.new`, note);
    },
    async finish() {
      await handle.sync();
      await rename(part, file);
      await rm(note, { force: true });
    },
    close: () => handle.close(),
  };
}

async function readPart(note: string): Promise<Part | undefined> {
  try {
    return JSON.parse(await readFile(note, "utf8")) as Part;
  } catch {
    // None was begun, or it can't be trusted: the export begins anew.
    return undefined;
  }
}

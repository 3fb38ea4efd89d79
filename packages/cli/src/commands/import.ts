import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { BulkKind, type Import, type ImportError, ImportStatus } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { newId } from "@licet/platform/ids";
import type { Session, TenantCommand } from "../bulk/command.ts";
import { formatOf, kindOf, onExistingOf } from "../bulk/flags.ts";
import { createPatience } from "../bulk/patience.ts";
import { count, wrap } from "../bulk/progress.ts";

const USAGE = `Takes customers or licenses in from a file.

Usage: licet import customers|licenses FILE [flags]

  --format csv|jsonl      as the name of the file ends where nothing is said
  --dry-run               count what would happen, and write nothing
  --on-existing fail      a row that is there already is an error (default)
                skip      it is passed over
                update    what the row names is taken over
  --id ID                 the import's id; made of the file and the flags where
                          nothing is said, so that the same command goes on
                          where it was cut off
  --errors FILE           write all errors there, as JSON lines

LICET_API_KEY is the tenant's API key, LICET_GRPC_URL says where Licet is
(http://127.0.0.1:9090). The exit code is 0 only if no row failed.
`;

/** Bytes sent at once. */
const CHUNK_BYTES = 256 * 1024;

/** Takes a file in. */
export const importCommand: TenantCommand = {
  usage: USAGE,
  async run(session, args) {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        format: { type: "string" },
        "dry-run": { type: "boolean", default: false },
        "on-existing": { type: "string", default: "fail" },
        id: { type: "string" },
        errors: { type: "string" },
      },
    });
    const [word, file, ...more] = positionals;
    if (file === undefined || more.length > 0) throw new Error("which file? `licet import --help` says how to name it");
    const settings = {
      kind: kindOf(word),
      format: formatOf(values.format, file),
      dryRun: values["dry-run"],
      onExisting: onExistingOf(values["on-existing"]),
    };
    const importId = values.id ?? (await idOf(file, settings));
    const { bulk } = session;
    const { import: begun } = await bulk.startImport({ requestId: newId(), importId, ...settings });
    if (!begun) throw new Error("the server answered without an import");
    const state = begun.status === ImportStatus.RUNNING ? await send(session, file, begun) : begun;
    session.progress.end();
    await session.print(report(state, begun.status !== ImportStatus.RUNNING));
    if (values.errors !== undefined) await writeErrors(session, importId, values.errors);
    return state.status === ImportStatus.COMPLETED && state.failed === 0n;
  },
};

/** The same for the same file and settings, so that whoever begins again goes on. */
async function idOf(file: string, settings: Readonly<Record<string, unknown>>): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify(settings));
  for await (const piece of createReadStream(file)) hash.update(piece as Buffer);
  return `file-${hash.digest("hex").slice(0, 40)}`;
}

/** Sends a file from where the import is, until its end or Ctrl-C. */
async function send({ bulk, progress, signal }: Session, file: string, begun: Import): Promise<Import> {
  const handle = await open(file);
  try {
    const { size } = await handle.stat();
    const { importId } = begun;
    const buffer = Buffer.alloc(CHUNK_BYTES);
    const patience = createPatience();
    const speed = createSpeed(begun.rows);
    let state = begun;
    while (state.status === ImportStatus.RUNNING && !signal.aborted) {
      const offset = state.nextOffset;
      const data = await read(handle, buffer, Number(offset));
      const final = Number(offset) + data.length >= size;
      try {
        const reply = await bulk.importChunk({ importId, offset, data, final });
        state = reply.import ?? state;
        if (state.nextOffset > offset) patience.headway();
      } catch (error) {
        await patience.bear(error);
        state = (await bulk.getImport({ importId }).catch(() => undefined))?.import ?? state;
      }
      progress.show(lineOf(basename(file), state, size, speed(state.rows)));
    }
    return state;
  } finally {
    await handle.close();
  }
}

async function read(handle: FileHandle, buffer: Buffer, offset: number): Promise<Buffer> {
  const { bytesRead } = await handle.read(buffer, 0, buffer.length, offset);
  // A copy: what is being sent must not change under it.
  return Buffer.from(buffer.subarray(0, bytesRead));
}

/** Rows in a second, since the beginning of this run. */
function createSpeed(before: bigint): (rows: bigint) => number {
  const begunAt = performance.now();
  return (rows) => Math.round((Number(rows - before) / Math.max(1, performance.now() - begunAt)) * 1_000);
}

function lineOf(name: string, { rows, failed, nextOffset }: Import, size: number, perSecond: number): string {
  const share = size === 0 ? 100 : Math.floor((Number(nextOffset) / size) * 100);
  const short = name.length > 24 ? `${name.slice(0, 23)}…` : name;
  return `${short}  ${share} %  ${count(rows)} rows  ${count(perSecond)}/s  ${count(failed)} failed`;
}

function report(state: Import, before: boolean): string {
  const { kind, dryRun, created, updated, unchanged, skipped, failed } = state;
  const things = kind === BulkKind.CUSTOMERS ? "customers" : "licenses";
  const would = dryRun ? " (a dry run: nothing was written)" : "";
  const counts = [
    `${count(created)} created`,
    ...(updated > 0n ? [`${count(updated)} updated`] : []),
    ...(unchanged > 0n ? [`${count(unchanged)} unchanged`] : []),
    ...(skipped > 0n ? [`${count(skipped)} skipped`] : []),
    `${count(failed)} failed`,
  ];
  const lines = [wrap(`${count(state.rows)} ${things}: ${counts.join(", ")}${would}.`, "  ")];
  for (const error of state.firstErrors) lines.push(wrap(sentence(error), "  "));
  const more = Number(failed) - new Set(state.firstErrors.map(({ line }) => line)).size;
  if (more > 0) lines.push(`and ${count(more)} more; --errors FILE writes them all\n`);
  if (state.status === ImportStatus.FAILED) lines.push(wrap(`The file can't be read: ${state.failure}.`, "  "));
  if (state.status === ImportStatus.CANCELLED) lines.push("The import was cancelled.\n");
  if (state.status === ImportStatus.RUNNING) lines.push("Stopped; the same command goes on from here.\n");
  else if (before) lines.push("This file was taken in before; --id with another id takes it in anew.\n");
  return lines.join("");
}

function sentence({ line, field, message }: ImportError): string {
  return `line ${line}: ${field === "" || message.startsWith(field) ? "" : `${field} `}${message}`;
}

async function writeErrors({ bulk }: Session, importId: string, file: string): Promise<void> {
  await writeFile(file, "");
  for (let pageToken = ""; ; ) {
    const page = await bulk.listImportErrors({ importId, pageSize: 500, pageToken });
    const lines = page.errors.map(({ line, field, message, reason }) =>
      JSON.stringify({ line: Number(line), field, reason, message }),
    );
    await writeFile(file, lines.map((line) => `${line}\n`).join(""), { flag: "a" });
    pageToken = page.nextPageToken;
    if (pageToken === "") return;
  }
}

import { createReadStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { createInterface } from "node:readline";

/** What became of a call: a reply, a refusal, or nobody knows. A timeout is unknown, never failed. */
export type OutcomeKind = "ok" | "fail" | "unknown";

/** A batch of usage events is about to be sent. Its events are numbered and say what their number says. */
export interface TrackEntry {
  readonly op: "track";
  readonly call: string;
  readonly tenant: string;
  readonly lane: string;
  readonly first: number;
  readonly count: number;
  readonly customer: string;
  /** When the events happened, in epoch milliseconds. */
  readonly at: number;
}

/** A change is about to be asked for. */
export interface ChangeEntry {
  readonly op: "change";
  readonly call: string;
  readonly kind: "create" | "provision" | "suspend" | "resume" | "revoke" | "activate" | "deactivate";
  readonly tenant: string;
  readonly customer: string;
  readonly request: string;
  /** Empty until it is known. */
  readonly license: string;
  /** What is activated or deactivated. */
  readonly feature?: string;
}

/** The end of a call that was announced. */
export interface EndEntry {
  readonly op: "end";
  readonly call: string;
  readonly outcome: OutcomeKind;
  /** Epoch milliseconds at which the reply was there. */
  readonly at: number;
  readonly code?: string;
  readonly license?: string;
  readonly version?: number;
}

/** A decision that was asked for; it changes nothing, so it is noted once, at its end. */
export interface AskEntry {
  readonly op: "ask";
  readonly tenant: string;
  readonly customer: string;
  /** The license that the question is about. */
  readonly about: string;
  readonly feature: string;
  readonly replica: string;
  /** 0: without a token. */
  readonly atLeast: number;
  /** What the token makes certain. */
  readonly expected?: "ALLOW" | "DENY";
  readonly asked: number;
  readonly answered: number;
  readonly code?: string;
  readonly decision?: string;
  readonly reason?: string;
  readonly license?: string;
  readonly version?: number;
}

/** Something of another tenant was asked for. */
export interface ForeignEntry {
  readonly op: "foreign";
  readonly method: string;
  readonly tenant: string;
  /** The code of the refusal, or OK with what was shown. */
  readonly code: string;
}

/** One line of a journal. */
export type Entry = TrackEntry | ChangeEntry | EndEntry | AskEntry | ForeignEntry;

/** A journal that is on the disk. */
export interface Journal {
  /** Resolves once the entry is flushed to the disk; entries of the same moment share a flush. */
  write(entry: Entry): Promise<void>;
  close(): Promise<void>;
}

/** Opens a new journal: one line of JSON for each entry. */
export async function openJournal(path: string): Promise<Journal> {
  const file = await open(path, "ax");
  let waiting: { text: string; written: PromiseWithResolvers<void> }[] = [];
  let running: Promise<void> | undefined;
  const flush = async (): Promise<void> => {
    while (waiting.length > 0) {
      const group = waiting;
      waiting = [];
      await writeGroup(file, group);
    }
    running = undefined;
  };
  return {
    write(entry) {
      const written = Promise.withResolvers<void>();
      waiting.push({ text: `${JSON.stringify(entry)}\n`, written });
      running ??= flush();
      return written.promise;
    },
    async close() {
      await running;
      await file.close();
    },
  };
}

async function writeGroup(
  file: FileHandle,
  group: readonly { text: string; written: PromiseWithResolvers<void> }[],
): Promise<void> {
  try {
    await file.write(group.map(({ text }) => text).join(""));
    await file.datasync();
    for (const { written } of group) written.resolve();
  } catch (error) {
    for (const { written } of group) written.reject(error);
  }
}

/** Reads a journal. A last line that was cut off by a crash is left out: nobody had waited for it. */
export async function* readJournal(path: string): AsyncGenerator<Entry> {
  let line: string | undefined;
  for await (const next of createInterface({ input: createReadStream(path) })) {
    if (line !== undefined) yield JSON.parse(line) as Entry;
    line = next;
  }
  if (line?.endsWith("}")) yield JSON.parse(line) as Entry;
}

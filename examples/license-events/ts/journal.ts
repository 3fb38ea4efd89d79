/**
 * Stands for the database of a real consumer: an append-only file that holds every effect together with where the
 * consumer was when it had it. A line is one transaction: it is there as a whole or not at all.
 */
import { appendFileSync, closeSync, fsyncSync, ftruncateSync, openSync, readFileSync } from "node:fs";

/** One line of a journal; one without an event tells only where a subscription goes on. */
export interface Entry {
  readonly eventId?: string;
  readonly type?: string;
  readonly tenantId?: string;
  readonly customerId?: string;
  readonly version?: number;
  readonly licenseId?: string;
  readonly resumeToken?: string;
}

/** An open journal, and what its lines amount to. */
export interface Journal {
  /** The highest version of a customer that has taken effect; 0 when there is none. */
  version(tenantId: string, customerId: string): number;
  /** The last resume token; empty when there is none. */
  token(): string;
  /** Makes an entry durable, then prints it. */
  append(entry: Entry): void;
  close(): void;
}

/** Opens a journal, or begins one. A last line that a crash cut short is no effect and is removed. */
export function openJournal(path: string): Journal {
  const file = openSync(path, "a+", 0o600);
  const content = readFileSync(path);
  const whole = content.lastIndexOf("\n") + 1;
  ftruncateSync(file, whole);
  const versions = new Map<string, number>();
  let token = "";
  const note = ({ eventId, tenantId, customerId, version = 0, resumeToken }: Entry): void => {
    if (eventId !== undefined) versions.set(`${tenantId}/${customerId}`, version);
    if (resumeToken !== undefined) token = resumeToken;
  };
  for (const line of content.subarray(0, whole).toString("utf8").split("\n")) {
    if (line !== "") note(JSON.parse(line) as Entry);
  }
  return {
    version: (tenantId, customerId) => versions.get(`${tenantId}/${customerId}`) ?? 0,
    token: () => token,
    append(entry) {
      const line = `${JSON.stringify(entry)}\n`;
      appendFileSync(file, line);
      fsyncSync(file);
      note(entry);
      process.stdout.write(line);
    },
    close: () => closeSync(file),
  };
}

/** A setting that the consumer can't do without. */
export function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === "") throw new Error(`${name} is not set`);
  return value;
}

/** Tells the operator, as a line of JSON. */
export function tell(message: string, facts: Readonly<Record<string, unknown>>): void {
  process.stderr.write(`${JSON.stringify({ message, ...facts })}\n`);
}

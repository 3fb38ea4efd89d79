import { roles } from "@licet/platform/database/roles";
import pg from "pg";

/** One statement as it was sent, and where in its answer the marked version came, if it did. */
interface Statement {
  /** Which pool sent it: that of the app role or that of the system role. */
  readonly role: "app" | "system";
  readonly text: string;
  readonly values: readonly unknown[];
  readonly versionIn?: string;
}

/** The statements of one call, to be sent again for other targets. */
export interface Recording {
  readonly statements: readonly Statement[];
  readonly subject: Subject;
}

/** What a call was about: the texts that stand for it in its statements. */
export interface Subject {
  readonly requestId: string;
  readonly customerId: string;
  /** Empty where the call is about none. */
  readonly licenseId: string;
}

/** An entitlement version that nothing else in the statements equals; what the recorded call raises it to. */
export const MARKED_VERSION = 987_654_321n;
const RAISED = String(MARKED_VERSION + 1n);

/** Ids of rows that were there before, see `licensing-data.ts`. */
const FILLED_IDS = "0194";

const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;

/** Runs a call and records what it sends through `pg`, in the order in which it is answered. One call at a time. */
export async function record(subject: Subject, call: () => Promise<unknown>): Promise<Recording> {
  const statements: Statement[] = [];
  const { query } = pg.Client.prototype;
  // The overloads of `query` are more than is used: a text with values, or with a name as well, answered by a promise.
  type Sent = string | { readonly text: string; readonly values?: unknown[] };
  const send = query as unknown as (this: pg.Client, sent: Sent, values?: unknown[]) => Promise<pg.QueryResult>;
  const spy = async function (this: pg.Client, sent: Sent, given: unknown[] = []): Promise<pg.QueryResult> {
    const { text, values = [] } = typeof sent === "string" ? { text: sent, values: given } : sent;
    // `user` is there and not among pg's types.
    const role = (this as pg.Client & { readonly user?: string }).user === roles.system ? "system" : "app";
    const place = statements.push({ role, text, values }) - 1;
    const result = await send.call(this, sent, typeof sent === "string" ? given : undefined);
    const versionIn = Object.entries(result.rows?.[0] ?? {}).find(([, value]) => String(value) === RAISED)?.[0];
    if (versionIn !== undefined) statements[place] = { role, text, values, versionIn };
    return result;
  };
  pg.Client.prototype.query = spy as typeof query;
  try {
    await call();
  } finally {
    pg.Client.prototype.query = query;
  }
  return { statements, subject };
}

/** Bare connections as the two serving roles. */
export interface BarePools {
  readonly app: pg.Pool;
  readonly system: pg.Pool;
}

/**
 * Sends the recorded statements once more, on bare connections and about another subject: its ids take the place of the
 * recorded ones, ids that the call made are made anew, and the version is what the database answers.
 */
export async function replay(pools: BarePools, { statements, subject }: Recording, about: Subject): Promise<void> {
  const subjects = new Map([
    [subject.requestId, about.requestId],
    [subject.customerId, about.customerId],
    [subject.licenseId, about.licenseId],
  ]);
  const made = new Map<string, string>();
  const renew = (id: string): string => {
    if (subjects.has(id) || id.startsWith(FILLED_IDS)) return id;
    if (!made.has(id)) made.set(id, crypto.randomUUID());
    return made.get(id) ?? id;
  };
  const put = (value: string): string => {
    let text = value.replace(uuid, renew);
    for (const [from, to] of subjects) text = text.replaceAll(from, to);
    return text;
  };
  const clients: { app?: pg.PoolClient; system?: pg.PoolClient } = {};
  let version = RAISED;
  try {
    for (const { role, text, values, versionIn } of statements) {
      clients[role] ??= await pools[role].connect();
      const given = values.map((value) => {
        if (String(value) === RAISED) return version;
        return typeof value === "string" ? put(value) : value;
      });
      const { rows } = await clients[role].query(text, given);
      if (versionIn !== undefined) version = String(rows[0][versionIn]);
      if (text === "commit") {
        clients[role].release();
        delete clients[role];
      }
    }
  } finally {
    clients.app?.release(true);
    clients.system?.release(true);
  }
}

import { hash } from "node:crypto";
import { type RawBuilder, sql } from "kysely";
import pg from "pg";

/** Marks a statement whose plan sessions keep; see {@link keepPlan}. */
const KEEP_PLAN = "/* keep plan */";
/** Marks a statement that nobody waits for; see {@link dontWait}. */
const DONT_WAIT = "/* don't wait */";
/** How Kysely begins a transaction of a given access mode, which all of ours have. */
const BEGIN = "start transaction ";
const SET_TENANT = "SELECT set_config('licet.tenant', $1, true)";

/**
 * For the end of a statement: lets each session plan it a few times and keep a plan then, as planning takes about as long as
 * carrying it out, and much longer for a join of many tables. Its text must always be the same: no lists of parameters that
 * vary in length.
 */
export const keepPlan: RawBuilder<unknown> = sql.raw(KEEP_PLAN);

/**
 * For the end of a write in a transaction whose result nobody looks at: it is sent together with the next statement, and its
 * caller goes on at once. Should it fail, the next statement that is waited for, at the latest the commit, throws its error.
 */
export const dontWait: RawBuilder<unknown> = sql.raw(DONT_WAIT);

/** Both, see {@link keepPlan} and {@link dontWait}. */
export const keepPlanDontWait: RawBuilder<unknown> = sql.raw(KEEP_PLAN + DONT_WAIT);

/** Sets the tenant for the rest of the transaction. */
export const setTenantStatement = (tenant: string): RawBuilder<unknown> =>
  sql`SELECT set_config('licet.tenant', ${tenant}, true)`;

/** Names of statements whose plans are kept by their texts, of which a program has few. */
const planNames = new Map<string, string>();

/** What is told of a statement that nobody waits for. */
const NOTHING = { command: "", rowCount: 0, rows: [] };

type Send = (this: pg.Client, query: unknown, values?: unknown) => Promise<unknown>;

/**
 * Makes a connection send less often, as each time costs both sides more than most statements do: the beginning of a
 * transaction goes out with its tenant and its first statement, writes marked with {@link dontWait} with the one behind
 * them. And it prepares the statements that are marked with {@link keepPlan}. For connections with `pipeline`.
 */
export function economize(client: pg.Client): void {
  /** The beginning of a transaction that is not sent yet. */
  let beginning: string | undefined;
  /** Set by a failure of a statement that nobody waited for. */
  let failed: { readonly error: unknown } | undefined;
  /** Whether what was sent is still held back. */
  let corked = false;

  const send = (text: string, values?: unknown): Promise<unknown> => {
    // The overloads of `query` are more than the driver of Kysely uses: a text with values, answered by a promise.
    const query = pg.Client.prototype.query as unknown as Send;
    if (!text.includes(KEEP_PLAN)) return query.call(client, text, values);
    const name = planNames.get(text) ?? hash("sha1", text);
    planNames.set(text, name);
    return query.call(client, { name, text, values });
  };
  const sendWithoutWaiting = (text: string, values?: unknown): Promise<unknown> => {
    if (!corked) client.connection.stream.cork();
    corked = true;
    send(text, values).catch((error: unknown) => {
      failed ??= { error };
    });
    return Promise.resolve(NOTHING);
  };
  const sendAndWait = async (text: string, values?: unknown): Promise<unknown> => {
    const answered = send(text, values);
    if (corked) client.connection.stream.uncork();
    corked = false;
    // Answers come in the order of the statements: those that nobody waited for have failed before, if they have.
    const [outcome] = await Promise.allSettled([answered]);
    const earlier = failed;
    const undoes = /^rollback/i.test(text);
    if (undoes || text === "commit") failed = undefined;
    if (earlier !== undefined && !undoes) throw earlier.error;
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  };

  const economical = (text: string, values?: readonly unknown[]): Promise<unknown> => {
    if (text.startsWith(BEGIN)) {
      beginning = text;
      failed = undefined;
      return Promise.resolve(NOTHING);
    }
    if (beginning !== undefined) {
      const begin = beginning;
      beginning = undefined;
      // As one text: where the first half fails, the second is not carried out, and what follows sees no tenant's rows.
      if (text === SET_TENANT) {
        const tenant = pg.escapeLiteral(String(values?.[0]));
        return sendWithoutWaiting(`${begin}; ${SET_TENANT.replace("$1", () => tenant)}`);
      }
      if (text === "commit" || text === "rollback") return Promise.resolve({ ...NOTHING, command: text.toUpperCase() });
      return sendAndWait(begin).then(() => economical(text, values));
    }
    return text.endsWith(DONT_WAIT) ? sendWithoutWaiting(text, values) : sendAndWait(text, values);
  };
  client.query = economical as unknown as typeof client.query;
}

import { setTimeout as delay } from "node:timers/promises";
import { type AccessMode, Kysely, PostgresDialect, type Transaction } from "kysely";
import pg from "pg";
import { platformError } from "../errors.ts";
import { codeOf, isConnectionError } from "./connection.ts";
import { economize, setTenantStatement } from "./session.ts";

/** One database as the two roles that serve see it. */
export interface Databases<DB> {
  /** Role `licet_app`: only rows of the transaction's tenant. For {@link inTenant}. */
  readonly app: Kysely<DB>;
  /** Role `licet_system`: tables whose policies name it, across tenants. For {@link asSystem}. */
  readonly system: Kysely<DB>;
}

/** What {@link openDatabase} needs. */
export interface DatabaseOptions {
  readonly url: string;
  /** Shown in `pg_stat_activity`. */
  readonly applicationName: string;
  /** Connections held at most; they are opened when needed and closed after 10 s without work. */
  readonly maxConnections: number;
}

/** SQLSTATEs after which the same transaction may succeed: serialization failure, deadlock. */
const RETRYABLE = new Set(["40001", "40P01"]);
const MAX_RETRIES = 3;
const MAX_RETRY_DELAY_MS = 50;

/**
 * Transactions that wait for a connection, for each connection there is; the next one is refused. What waits behind so
 * many would be answered late, and in an overload all of them would.
 */
const WAITING_PER_CONNECTION = 16;
/** How long a refused caller is asked to wait, in milliseconds. */
const RETRY_AFTER_MS = 250;

/** The types of pg name only some of the server's type numbers. */
type Oid = Parameters<typeof pg.types.getTypeParser>[0];

/** OIDs of int8 and int8[]; a `number` would lose digits above 2^53. */
const INT8 = 20;
const INT8_ARRAY = 1016 as number as Oid;
/** OID of date: as text; pg would make it midnight in the time zone of the process. */
const DATE = 1082;

/**
 * Opens a pool of connections. Nothing connects before the first statement. Types: int8 is `bigint`, numeric and date are
 * strings, timestamptz is `Date`, bytea is `Buffer`. Every session has lock_timeout 2 s, statement_timeout 5 s and
 * idle_in_transaction_session_timeout 10 s. When 16 times as many transactions wait as there are connections, the next
 * one is refused with OVERLOADED. Close with `destroy()`.
 */
export function openDatabase<DB>(options: DatabaseOptions): Kysely<DB> {
  const pool = openPool(options, {
    lock_timeout: 2_000,
    statement_timeout: 5_000,
    idle_in_transaction_session_timeout: 10_000,
    // What `economize` needs.
    pipeline: true,
  });
  // What a pool opens are clients of `pg`.
  pool.on("connect", (client) => economize(client as unknown as pg.Client));
  const maxWaiting = WAITING_PER_CONNECTION * options.maxConnections;
  return new Kysely<DB>({
    dialect: new PostgresDialect({
      pool: {
        async connect() {
          if (pool.waitingCount < maxWaiting) return pool.connect();
          const message = "too many transactions wait for the database; try again";
          throw platformError("OVERLOADED", message, { retryAfterMs: RETRY_AFTER_MS });
        },
        end: () => pool.end(),
        options: pool.options,
      },
    }),
  });
}

/** A pool with this project's types and the given session limits, for {@link openDatabase} and for migrations. */
export function openPool(options: DatabaseOptions, limits: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool({
    connectionString: options.url,
    application_name: options.applicationName,
    max: options.maxConnections,
    connectionTimeoutMillis: 5_000,
    idleTimeoutMillis: 10_000,
    types: { getTypeParser },
    ...limits,
  });
  // The server ended a connection, idle or between two statements of a transaction. The pool drops it and the next
  // statement on it fails; an error event that nobody listens to would end the process.
  pool.on("error", () => undefined);
  pool.on("connect", (client) => client.on("error", () => undefined));
  return pool;
}

const parsers = new Map<number, (text: string) => unknown>([
  [INT8, BigInt],
  [INT8_ARRAY, (text) => parseInt8Array(text).map((value) => (value === null ? null : BigInt(value)))],
  [DATE, (text) => text],
]);

const parseInt8Array: (text: string) => (string | null)[] = pg.types.getTypeParser(INT8_ARRAY);

function getTypeParser(oid: Oid, format?: "text" | "binary"): unknown {
  return parsers.get(oid) ?? pg.types.getTypeParser(oid, format);
}

/**
 * Runs `work` in one transaction (READ COMMITTED) that sees and writes only rows of `tenant`. `work` may run up to four
 * times, as deadlocks and serialization failures are retried with a jittered pause: it must not have effects outside.
 *
 * @param options.signal aborts when nobody waits for the result any more: it is then not begun.
 * @throws ServiceError UNAVAILABLE when the database can't be reached; the outcome of a write is then unknown.
 * @throws ServiceError OVERLOADED when too many transactions wait; nothing has happened.
 * @throws whatever `work` throws, after a rollback.
 */
export function inTenant<DB, T>(
  databases: Databases<DB>,
  tenant: string,
  work: (tx: Transaction<DB>) => Promise<T>,
  options: { readonly readOnly?: boolean; readonly signal?: AbortSignal } = {},
): Promise<T> {
  if (tenant === "") throw new Error("inTenant: the tenant is empty");
  return transact(databases.app, options.readOnly ? "read only" : "read write", async (tx) => {
    options.signal?.throwIfAborted();
    await setTenant(tx, tenant);
    return work(tx);
  });
}

/** Sets the tenant for the rest of the transaction; row-level security of the app role follows it. */
export async function setTenant<DB>(tx: Transaction<DB>, tenant: string): Promise<void> {
  await setTenantStatement(tenant).execute(tx);
}

/** Runs `work` in one transaction of the system role; retries and errors as in {@link inTenant}. */
export function asSystem<DB, T>(databases: Databases<DB>, work: (tx: Transaction<DB>) => Promise<T>): Promise<T> {
  return transact(databases.system, "read write", work);
}

async function transact<DB, T>(
  db: Kysely<DB>,
  mode: AccessMode,
  work: (tx: Transaction<DB>) => Promise<T>,
): Promise<T> {
  for (let retries = 0; ; retries++) {
    try {
      return await db.transaction().setAccessMode(mode).execute(work);
    } catch (error) {
      if (isConnectionError(error)) {
        throw platformError("DEPENDENCY_UNAVAILABLE", "the database cannot be reached", { cause: error });
      }
      if (retries === MAX_RETRIES || !RETRYABLE.has(codeOf(error) ?? "")) throw error;
    }
    await delay(Math.random() * MAX_RETRY_DELAY_MS * (retries + 1));
  }
}

import pg from "pg";
import type { Logger } from "../logging.ts";

/** A lock that this process holds until it releases it or loses its connection. */
export interface HeldLock {
  /**
   * Aborts when the lock is lost: its connection broke, or the server ended it
   * because the process had frozen. Another process can hold the lock from
   * then on, and slightly before this process notices: whatever the lock
   * protects must survive two holders for a moment.
   */
  readonly signal: AbortSignal;
  release(): Promise<void>;
}

/** Locks by name, one holder each among all processes that use the same database. */
export interface SessionLocks {
  /** Waits for the lock; undefined when `signal` aborted or the locks were stopped first. Waiters of one process take turns. */
  acquire(name: string, signal: AbortSignal): Promise<HeldLock | undefined>;
  /** Ends the connection; every held lock is lost. */
  stop(): Promise<void>;
}

/** What {@link createSessionLocks} needs. */
export interface SessionLocksOptions {
  /** The database that the holders of a lock share; locks of different databases know nothing of each other. */
  readonly url: string;
  /** Shown in `pg_stat_activity`. */
  readonly applicationName: string;
  readonly logger: Logger;
}

/** How often a free lock is looked for and the connection is shown to be alive. */
const pingMs = 500;
/** The server ends a connection that was silent this long, and so frees the locks of a frozen process. */
const frozenAfterMs = 2_000;

/**
 * Creates locks on one connection of their own, opened when the first lock is
 * wanted and opened again when it breaks. They are session-level advisory
 * locks, so they end with their connection, however the process ends.
 */
export function createSessionLocks(options: SessionLocksOptions): SessionLocks {
  return new PostgresSessionLocks(options);
}

interface Waiter {
  readonly name: string;
  readonly settle: (lock: HeldLock | undefined) => void;
}

class PostgresSessionLocks implements SessionLocks {
  readonly #options: SessionLocksOptions;
  readonly #waiters = new Set<Waiter>();
  readonly #held = new Map<string, AbortController>();
  #client: pg.Client | undefined;
  #timer: NodeJS.Timeout | undefined;
  #round: Promise<void> | undefined;
  #wantedMeanwhile = false;
  #queue: Promise<unknown> = Promise.resolve();
  #stopped = false;

  constructor(options: SessionLocksOptions) {
    this.#options = options;
  }

  async acquire(name: string, signal: AbortSignal): Promise<HeldLock | undefined> {
    if (signal.aborted || this.#stopped) return undefined;
    const { promise, resolve } = Promise.withResolvers<HeldLock | undefined>();
    const settle = (lock: HeldLock | undefined): void => {
      this.#waiters.delete(waiter);
      signal.removeEventListener("abort", giveUp);
      resolve(lock);
    };
    const giveUp = (): void => settle(undefined);
    const waiter: Waiter = { name, settle };
    signal.addEventListener("abort", giveUp);
    this.#waiters.add(waiter);
    this.#ping();
    return promise;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    for (const waiter of this.#waiters) waiter.settle(undefined);
    await this.#round;
    await this.#lose(new Error("the locks were stopped"));
  }

  /** Begins a round now, and then one every `pingMs` as long as there is a lock to get or to keep. */
  #ping(): void {
    clearTimeout(this.#timer);
    if (this.#stopped || this.#waiters.size + this.#held.size === 0) return;
    if (this.#round !== undefined) {
      this.#wantedMeanwhile = true;
      return;
    }
    this.#round = this.#tryLocks()
      .catch((error: unknown) => {
        this.#options.logger.debug({ err: error }, "the locks can't be tried now");
        void this.#lose(error);
      })
      .finally(() => {
        this.#round = undefined;
        this.#timer = setTimeout(() => this.#ping(), this.#wantedMeanwhile ? 0 : pingMs);
        this.#wantedMeanwhile = false;
      });
  }

  /** One round trip: shows the server that this process lives, and tries the locks that are wanted. */
  async #tryLocks(): Promise<void> {
    this.#client ??= await this.#connect();
    const client = this.#client;
    const wanted = new Set([...this.#waiters].map(({ name }) => name).filter((name) => !this.#held.has(name)));
    const locked = await this.#query(
      client,
      "SELECT name FROM unnest($1::text[]) AS name WHERE pg_try_advisory_lock(hashtextextended(name, 0))",
      [...wanted],
    );
    for (const name of locked) {
      if (this.#client !== client) return;
      const lock = this.#hold(name, client);
      const waiter = [...this.#waiters].find((candidate) => candidate.name === name);
      if (waiter === undefined) await lock.release();
      else waiter.settle(lock);
    }
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client({
      connectionString: this.#options.url,
      application_name: this.#options.applicationName,
      connectionTimeoutMillis: frozenAfterMs,
      query_timeout: frozenAfterMs,
      options: `-c idle_session_timeout=${frozenAfterMs}`,
    });
    const broken = (error: Error): void => {
      if (this.#client === client) void this.#lose(error);
    };
    client.on("error", broken);
    client.on("end", () => broken(new Error("the server closed the connection")));
    await client.connect();
    return client;
  }

  /** Runs a statement on names that returns names, behind the one under way. */
  #query(client: pg.Client, statement: string, names: readonly string[]): Promise<string[]> {
    const result = this.#queue.then(() => client.query<{ name: string }>(statement, [names]));
    this.#queue = result.catch(() => undefined);
    return result.then(({ rows }) => rows.map(({ name }) => name));
  }

  #hold(name: string, client: pg.Client): HeldLock {
    const controller = new AbortController();
    this.#held.set(name, controller);
    const release = async (): Promise<void> => {
      if (this.#held.get(name) !== controller) return;
      try {
        await this.#query(
          client,
          "SELECT name FROM unnest($1::text[]) AS name WHERE pg_advisory_unlock(hashtextextended(name, 0))",
          [name],
        );
        this.#held.delete(name);
      } catch (error) {
        // A connection that can't unlock would keep the lock from everyone.
        void this.#lose(error);
      }
      this.#ping();
    };
    return { signal: controller.signal, release };
  }

  async #lose(why: unknown): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (this.#held.size > 0 && !this.#stopped) {
      const locks = [...this.#held.keys()];
      this.#options.logger.warn({ err: why, locks }, "the connection of the locks broke; they are lost");
    }
    const lost = [...this.#held.values()];
    this.#held.clear();
    for (const controller of lost) {
      controller.abort(new Error("the connection that held the lock broke", { cause: why }));
    }
    await client?.end().catch(() => undefined);
  }
}

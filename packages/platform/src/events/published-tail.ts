import { setTimeout as delay } from "node:timers/promises";
import { type Kysely, sql } from "kysely";
import { platformError, type ServiceError } from "../errors.ts";
import type { Logger } from "../logging.ts";
import { type Condition, createCondition } from "./condition.ts";
import type { PublishedTables, TailState } from "./published.ts";

/** One reader's view of the tail of a tenant's events. */
export interface Follower {
  /**
   * Resolves with what was seen last as soon as it reaches behind `after`, and otherwise when `signal` aborts: then
   * with undefined where nothing was seen yet.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the database could not be asked the last time, SHUTTING_DOWN.
   */
  next(after: bigint, signal: AbortSignal): Promise<TailState | undefined>;
  /** Ends it; call it exactly once. */
  close(): void;
}

/** Looks at how far the published events reach, on behalf of all readers of a process. */
export interface PublishedTail {
  follow(tenant: string): Follower;
  stop(): Promise<void>;
}

/** What {@link createPublishedTail} needs. */
export interface PublishedTailOptions<DB extends PublishedTables> {
  /** The database as the system role. */
  readonly db: Kysely<DB>;
  readonly logger: Logger;
  /** How often it looks, in milliseconds; 100 when absent. */
  readonly pollMs?: number;
}

/** How long it waits after a failed look, in milliseconds. */
const retryMs = 500;

/** Creates a tail that asks the database one small question per interval, however many follow, and none while nobody does. */
export function createPublishedTail<DB extends PublishedTables>(options: PublishedTailOptions<DB>): PublishedTail {
  return new PollingTail(options);
}

interface Followed {
  followers: number;
  state: TailState | undefined;
  readonly changed: Condition;
}

class PollingTail<DB extends PublishedTables> implements PublishedTail {
  readonly #options: PublishedTailOptions<DB>;
  readonly #tenants = new Map<string, Followed>();
  readonly #stopping = new AbortController();
  #failure: ServiceError | undefined;
  #running: Promise<void> | undefined;

  constructor(options: PublishedTailOptions<DB>) {
    this.#options = options;
  }

  follow(tenant: string): Follower {
    const followed = this.#tenants.get(tenant) ?? { followers: 0, state: undefined, changed: createCondition() };
    this.#tenants.set(tenant, followed);
    followed.followers++;
    this.#running ??= this.#run();
    return {
      next: (after, signal) => this.#next(followed, after, signal),
      close: () => {
        followed.followers--;
        if (followed.followers === 0) this.#tenants.delete(tenant);
      },
    };
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#notifyAll();
    await this.#running;
  }

  async #next(followed: Followed, after: bigint, signal: AbortSignal): Promise<TailState | undefined> {
    for (;;) {
      if (this.#stopping.signal.aborted) throw platformError("SHUTTING_DOWN", "this instance is ending; try again");
      if (this.#failure !== undefined) throw this.#failure;
      const { state } = followed;
      if ((state !== undefined && state.last > after) || signal.aborted) return state;
      await followed.changed.wait(signal);
    }
  }

  /** Looks as long as somebody follows. */
  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted && this.#tenants.size > 0) {
      const ok = await this.#look();
      const pauseMs = ok ? (this.#options.pollMs ?? 100) : retryMs;
      await delay(pauseMs, undefined, { signal }).catch(() => undefined);
    }
    // In the same turn as the look at the tenants: whoever follows next starts it anew.
    this.#running = undefined;
    this.#failure = undefined;
  }

  async #look(): Promise<boolean> {
    try {
      const { rows } = await sql<{ tenant: string; last: bigint; now: Date }>`
        SELECT tenant, coalesce(last_position, 0) AS last, now() AS now
          FROM unnest(${[...this.#tenants.keys()]}::text[]) AS tenant
          LEFT JOIN event_tail ON tenant_id = tenant`.execute(this.#options.db);
      this.#failure = undefined;
      for (const { tenant, last, now } of rows) this.#see(tenant, { last, asOf: now });
      return true;
    } catch (error) {
      if (this.#failure === undefined) this.#options.logger.warn({ err: error }, "published events can't be looked at");
      const message = "the history can't be read now; resume";
      this.#failure = platformError("DEPENDENCY_UNAVAILABLE", message, { cause: error });
      this.#notifyAll();
      return false;
    }
  }

  #see(tenant: string, state: TailState): void {
    const followed = this.#tenants.get(tenant);
    if (followed === undefined) return;
    const before = followed.state;
    followed.state = state;
    if (before === undefined || before.last < state.last) followed.changed.notify();
  }

  #notifyAll(): void {
    for (const { changed } of this.#tenants.values()) changed.notify();
  }
}

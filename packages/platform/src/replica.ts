import { platformError, type ServiceError } from "./errors.ts";
import { LatestMap } from "./latest-map.ts";
import { createPlainStore, type ReplicaStore } from "./replica-store.ts";

/** How often the owner is asked again when its answer is older than what is known already. */
const MAX_ATTEMPTS = 3;

/** Of how many values, at most, it is asked whether they were used before one of them goes. */
const MAX_SPARED = 64;

/** What {@link createReplica} needs. */
export interface ReplicaOptions<V> {
  /** What the keys name, in the plural and for people, such as `API keys`. */
  name: string;
  /**
   * Asks the owner for the present state of a key; undefined when there is none. Instead of the owner, a cache may
   * answer, with a value of at least `atLeast` for which {@link Replica.isCurrent} holds.
   */
  lookUp(key: string, atLeast: bigint): Promise<V | undefined>;
  /**
   * What is kept of a value where a look-up found nothing newer: the same version, a lower one, or nothing at all. The
   * value itself when absent.
   */
  confirm?(held: V, found: V | undefined): V;
  /** Where the values are kept; as objects when absent. */
  store?: ReplicaStore<V>;
  /**
   * How many values are kept; beyond it one that was not used lately goes, an old one first, and is looked up when it is
   * needed again.
   */
  maxEntries: number;
  /** How many keys are remembered as not existing. */
  maxAbsent: number;
  /** How long after the owner was asked, in milliseconds, a key is taken as not existing before it is asked again. */
  absentTtlMs: number;
  /** How many look-ups may be under way at once; one more is refused. */
  maxLookups: number;
  /** The clock, in epoch milliseconds. It may run ahead of the owner's clock, and must never run behind it where `isCurrent` is used. */
  now: () => number;
  /** A clock that nobody can set, in milliseconds since some start; that of the process when absent. */
  steadyMs?: () => number;
}

/** Versioned state owned by another service and kept in memory here. */
export interface Replica<V> {
  /** What is known without asking: the value, `null` for a key known not to exist, undefined when the owner must be asked. */
  peek(key: string): V | null | undefined;
  /**
   * The value of a key, from memory or else from the owner, who is asked once
   * however many callers wait. A failed look-up reaches all of them and is not
   * remembered.
   *
   * @throws {ServiceError} UNAVAILABLE with OVERLOADED beyond `maxLookups`, with DEPENDENCY_UNAVAILABLE when the owner
   *   goes on answering less than an event has told.
   */
  get(key: string): Promise<V | undefined>;
  /**
   * As {@link get}, but asks the owner although there is a value, and again
   * while the answer is older than `atLeast` because its question was: a
   * look-up under way is joined.
   *
   * @throws {ServiceError} as `get`, and UNAVAILABLE with DEPENDENCY_UNAVAILABLE when the owner has not got `atLeast`.
   */
  refresh(key: string, atLeast?: bigint): Promise<V | undefined>;
  /** Resolves once an event or a look-up has brought a version of at least `atLeast`, or after `timeoutMs`. */
  arrival(key: string, atLeast: bigint, timeoutMs: number): Promise<void>;
  /**
   * Takes over a value that an event brought, unless an equal or higher version is known; says whether it did. With
   * `maxEntries` values in memory only the version of another one is noted: it was not asked for.
   */
  apply(key: string, value: V): boolean;
  /** From this moment of the owner's clock on, every change has been or will be given to `apply`. */
  completeFrom(ms: number): void;
  /**
   * Whether a value from elsewhere, read from the owner when its clock showed `readAtMs`, holds everything that events
   * have told so far.
   */
  isCurrent(key: string, version: bigint, readAtMs: number): boolean;
  /** How many values are kept now. */
  readonly size: number;
  /** The keys of the values that are kept. One may come twice, when its value changes meanwhile. */
  keys(): Iterable<string>;
}

/** The version that events or the past have told of a value that is not in memory, and when it was noted. */
interface Note {
  readonly version: bigint;
  readonly atMs: number;
  /** False: an earlier note is gone that may have told a higher version, because events can come again. */
  readonly highest: boolean;
}

/**
 * Until when a key is taken as not existing, by both clocks: one may be set back, the other stands still while the
 * machine sleeps.
 */
interface Absence {
  readonly untilMs: number;
  readonly untilSteadyMs: number;
}

/** A look-up under way. */
interface LookUp<V> {
  readonly found: Promise<V | undefined>;
  /** The highest version that was told before or meanwhile; the note of it may be gone when the owner answers. */
  heard: bigint;
}

/**
 * Creates an empty replica. Events fill it through `apply`; look-ups fill what
 * events have not brought. Both may overtake each other: only a higher version
 * is ever taken over, even where the higher one itself was dropped for want of
 * room. All that callers can make grow is bounded, because they choose the keys.
 */
export function createReplica<V extends { readonly version: bigint }>(options: ReplicaOptions<V>): Replica<V> {
  const { name, maxEntries, maxLookups, now, store: values = createPlainStore<V>() } = options;
  // Of values that are not in memory; as many again as there may be values.
  const notes = new LatestMap<Note>();
  // A value from elsewhere can't be judged when it was read before events were heard, or before a note that is gone.
  let heardFromMs = Number.POSITIVE_INFINITY;
  let notesFromMs = 0;
  const absences = createAbsences(options);
  const lookups = new Map<string, LookUp<V>>();
  const waiting = new Map<string, Set<() => void>>();

  const versionOf = (key: string): bigint | undefined => values.peek(key)?.version ?? notes.get(key)?.version;

  const note = (key: string, version: bigint, highest = notes.get(key)?.highest ?? notesFromMs === 0): void => {
    notes.set(key, { version, atMs: now(), highest });
    const dropped = notes.size > maxEntries ? notes.dropOldest() : undefined;
    if (dropped !== undefined) notesFromMs = Math.max(notesFromMs, dropped.value.atMs);
  };

  const dropOne = createHand(values);
  const keep = (key: string, value: V): void => {
    notes.delete(key);
    const dropped = !values.has(key) && values.size >= maxEntries ? dropOne() : undefined;
    values.set(key, value);
    if (dropped !== undefined) note(dropped.key, dropped.version, true);
  };

  const peek = (key: string): V | null | undefined => values.get(key) ?? (absences.has(key) ? null : undefined);

  const take = (key: string, value: V, wanted: boolean): boolean => {
    const running = lookups.get(key);
    if (running !== undefined) running.heard = larger(running.heard, value.version);
    const known = versionOf(key);
    // A value whose very version was noted may come in; one that is in memory stays.
    if (known !== undefined && (known > value.version || (known === value.version && values.has(key)))) return false;
    absences.delete(key);
    if (wanted || values.has(key) || values.size < maxEntries) keep(key, value);
    else if (known === undefined || known < value.version) note(key, value.version);
    for (const wake of waiting.get(key) ?? []) wake();
    return true;
  };

  const ask = async (key: string, atLeast: bigint, running: { heard: bigint }): Promise<V | undefined> => {
    // From the question on: the answer may be as old.
    const absence = absences.fromNow();
    const found = await options.lookUp(key, atLeast);
    if (running.heard > (versionOf(key) ?? 0n)) note(key, running.heard, false);
    const taken = found !== undefined && take(key, found, true);
    // An event may have come meanwhile, whatever the owner answered. Being looked up is no second use.
    const held = values.peek(key);
    const present = taken || held === undefined ? held : (options.confirm?.(held, found) ?? held);
    if (present !== undefined && present !== held) values.set(key, present);
    if (present === undefined && versionOf(key) === undefined) absences.note(key, absence);
    return present;
  };

  const lookUp = (key: string, atLeast: bigint): Promise<V | undefined> => {
    const running = lookups.get(key);
    if (running !== undefined) return running.found;
    if (lookups.size >= maxLookups) {
      throw platformError("OVERLOADED", `too many ${name} are being looked up; try again`, { retryAfterMs: 1_000 });
    }
    const begun = { heard: versionOf(key) ?? 0n };
    const found = ask(key, atLeast, begun).finally(() => lookups.delete(key));
    lookups.set(key, Object.assign(begun, { found }));
    return found;
  };

  const refresh = async (key: string, atLeast = 0n): Promise<V | undefined> => {
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
      const found = await lookUp(key, larger(atLeast, versionOf(key) ?? 0n));
      if ((found?.version ?? 0n) >= larger(atLeast, versionOf(key) ?? 0n)) return found;
    }
    throw notThere(atLeast, name);
  };

  return {
    peek,
    refresh,
    apply: (key, value) => take(key, value, false),
    async get(key) {
      const known = peek(key);
      return known === undefined ? refresh(key) : (known ?? undefined);
    },
    arrival: (key, atLeast, timeoutMs) => wait(waiting, key, timeoutMs, () => (versionOf(key) ?? -1n) >= atLeast),
    completeFrom(ms) {
      heardFromMs = ms;
    },
    isCurrent(key, version, readAtMs) {
      if (version < (versionOf(key) ?? 0n)) return false;
      if (values.has(key) || notes.get(key)?.highest === true) return true;
      return readAtMs > Math.max(heardFromMs, notesFromMs);
    },
    get size() {
      return values.size;
    },
    keys: () => values.keys(),
  };
}

/**
 * Creates what drops a value for want of room, and tells which (the SIEVE policy: Zhang et al., NSDI 2024): a hand goes through the keys
 * from the oldest on, spares those that were used since it last came by, and stops at the first that was not. Hits move
 * nothing, which in a large map would cost a rehash of all of it now and then; and what was asked for only once goes before
 * what is asked for often.
 */
export function createHand<V extends { readonly version: bigint }>(values: ReplicaStore<V>) {
  let keys = values.keys();
  return (): { key: string; version: bigint } | undefined => {
    for (let spared = 0; values.size > 0; ) {
      const next = keys.next();
      if (next.done === true) keys = values.keys();
      else if (spared++ >= MAX_SPARED || !values.spare(next.value)) {
        const version = values.peek(next.value)?.version ?? 0n;
        values.delete(next.value);
        return { key: next.value, version };
      }
    }
    return undefined;
  };
}

/** The keys that are known not to exist. */
function createAbsences({ maxAbsent, absentTtlMs, now, steadyMs = () => performance.now() }: ReplicaOptions<unknown>) {
  const absences = new LatestMap<Absence>();
  return {
    has(key: string): boolean {
      const absence = absences.get(key);
      return absence !== undefined && now() < absence.untilMs && steadyMs() < absence.untilSteadyMs;
    },
    fromNow: (): Absence => ({ untilMs: now() + absentTtlMs, untilSteadyMs: steadyMs() + absentTtlMs }),
    note(key: string, absence: Absence): void {
      absences.set(key, absence);
      if (absences.size > maxAbsent) absences.dropOldest();
    },
    delete: (key: string) => absences.delete(key),
  };
}

/** Waits until `done` holds, looking whenever the key's waiters are woken, or until the time is up. */
function wait(
  waiting: Map<string, Set<() => void>>,
  key: string,
  timeoutMs: number,
  done: () => boolean,
): Promise<void> {
  if (done()) return Promise.resolve();
  const { promise, resolve } = Promise.withResolvers<void>();
  const waiters = waiting.get(key) ?? new Set();
  waiting.set(key, waiters);
  const leave = (): void => {
    clearTimeout(timer);
    waiters.delete(look);
    if (waiters.size === 0 && waiting.get(key) === waiters) waiting.delete(key);
    resolve();
  };
  const look = (): void => {
    if (done()) leave();
  };
  const timer = setTimeout(leave, timeoutMs);
  waiters.add(look);
  return promise;
}

function notThere(atLeast: bigint, name: string): ServiceError {
  const message = `version ${atLeast} of what is asked about is not among the ${name} yet; try again`;
  return platformError("DEPENDENCY_UNAVAILABLE", message, { retryAfterMs: 500 });
}

function larger(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

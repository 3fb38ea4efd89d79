import { randomUUID } from "node:crypto";
import type { TrustedClock } from "./clock.ts";
import type { DiskCache, StoredClock } from "./disk-cache.ts";
import { LicetError } from "./errors.ts";
import type { WatchedFacts } from "./facts.ts";

/** How often the clock's mark is written, in milliseconds. */
const MARK_EVERY_MS = 30_000;
/** What a process that is killed may gain or lose by its mark, in milliseconds: a write may be late by half of it. */
const RESERVE_MS = 60_000;
/** Facts are written a second after they changed, and take a twentieth of the time at most. */
const MIN_PAUSE_MS = 1_000;
const PAUSE_FACTOR = 20;

/** Writes what outlives a restart, when it has changed. */
export interface Saver {
  /** Writes what is due; to be called each second or so. Nothing is due while a write goes on. */
  tick(): void;
  /** Writes all there is, once what goes on has ended; the mark is exact from then on. */
  finish(): Promise<void>;
}

/** What {@link createSaver} needs. */
export interface SaverOptions {
  readonly cache: DiskCache;
  readonly clock: TrustedClock;
  /** Undefined: only the clock is saved. */
  readonly facts?: WatchedFacts;
  readonly warn: (error: LicetError) => void;
}

/** Creates a saver; the first tick writes a mark. */
export function createSaver({ cache, clock, facts, warn }: SaverOptions): Saver {
  let written: { readonly id: string; readonly revision: number } | undefined;
  let factsDueAtMs = 0;
  let markDueAtMs = 0;
  let busy: Promise<void> = Promise.resolve();
  let isBusy = false;
  let hasFailed = false;

  const steadyMs = (): number => clock.machine().steadyMs;
  const areWritten = (): boolean => facts === undefined || facts.revision === written?.revision;
  const canWriteFacts = (): boolean => facts?.complete === true && !facts.resetting && !areWritten();

  const writeFacts = async (): Promise<void> => {
    if (facts === undefined) return;
    const { revision } = facts;
    const id = randomUUID();
    const startedAt = steadyMs();
    await cache.writeFacts({ ...facts.save(), id, writtenAtMs: clock.nowMs() });
    written = { id, revision };
    factsDueAtMs = steadyMs() + Math.max(MIN_PAUSE_MS, PAUSE_FACTOR * (steadyMs() - startedAt));
  };
  const writeClock = async (reserveMs: number): Promise<void> => {
    markDueAtMs = steadyMs() + MARK_EVERY_MS;
    const vouched =
      facts !== undefined && written !== undefined && areWritten() && !facts.resetting
        ? {
            id: written.id,
            factsAsOfMs: facts.factsAsOfMs,
            usageAsOfMs: facts.usageAsOfMs,
            resumeToken: facts.resumeToken,
          }
        : undefined;
    await cache.writeClock({ mark: clock.mark(reserveMs), facts: vouched } satisfies StoredClock);
  };
  const guarded = async (write: () => Promise<void>): Promise<void> => {
    try {
      await write();
      hasFailed = false;
    } catch (cause) {
      // Told once: a full disk is full the next second too.
      if (!hasFailed) warn(unwritable(cause));
      hasFailed = true;
    }
  };
  const run = (write: () => Promise<void>): Promise<void> => {
    isBusy = true;
    busy = guarded(write).finally(() => {
      isBusy = false;
    });
    return busy;
  };

  return {
    tick() {
      if (isBusy) return;
      const factsAreDue = canWriteFacts() && steadyMs() >= factsDueAtMs;
      const markIsDue = steadyMs() >= markDueAtMs;
      if (!factsAreDue && !markIsDue) return;
      void run(async () => {
        if (factsAreDue) await writeFacts();
        await writeClock(RESERVE_MS);
      });
    },
    async finish() {
      await busy;
      await run(async () => {
        if (canWriteFacts()) await writeFacts();
        await writeClock(0);
      });
    },
  };
}

function unwritable(cause: unknown): LicetError {
  const message = `the cache can't be written: ${(cause as Error).message}`;
  return new LicetError({ code: "UNAVAILABLE", reason: "CACHE_NOT_WRITTEN", message, cause });
}

import { hash } from "node:crypto";
import { createTrustedClock, type TrustedClock } from "./clock.ts";
import type { Connection } from "./connection.ts";
import { createDeciding } from "./deciding.ts";
import { createDiskCache, type DiskCache, type StoredClock, type StoredFacts } from "./disk-cache.ts";
import type { Environment } from "./environment.ts";
import { invalidArgument, LicetError } from "./errors.ts";
import { createWatchedFacts, FENCE_MS, type SavedFacts, type WatchedFacts } from "./facts.ts";
import type { LocalLicet, LocalOptions } from "./licet.ts";
import { checkCustomerId } from "./question.ts";
import { createSaver } from "./saver.ts";
import { createStates, type States } from "./state.ts";
import type { Telemetry } from "./telemetry.ts";
import { keepWatching } from "./watch.ts";

/** The most customers that a watch names, as WatchEntitlements takes them. */
const MAX_CUSTOMER_IDS = 1_000;

/** Creates a client that decides itself on what a watch tells. What the cache has is known at once. */
export function createLocal(
  options: LocalOptions,
  connection: Connection,
  environment: Environment,
  telemetry?: Telemetry,
): LocalLicet {
  const customerIds = checkedCustomerIds(options.customerIds);
  const { clock, facts, cache } = restore(options, environment);
  const saver = cache && createSaver({ cache, clock, facts, warn: environment.warn });
  const states = createStates();
  const stop = new AbortController();
  let lastError: LicetError | undefined;
  let given: LicetError | undefined;

  const tell = (): void => enterState(states, facts, given, lastError);
  const onProgress = (error?: LicetError): void => {
    lastError = error;
    tell();
  };
  const { random } = environment;
  const watching = keepWatching({ connection, facts, clock, customerIds, onProgress, random }, stop.signal).catch(
    (error: unknown) => {
      given = error instanceof LicetError ? error : unexpected(error);
      tell();
    },
  );

  return createDeciding({
    mode: "local",
    decider: facts,
    states,
    tick() {
      facts.tick();
      tell();
      saver?.tick();
    },
    async end() {
      stop.abort();
      await watching;
      facts.close();
      await saver?.finish();
      connection.close();
    },
    telemetry,
    stalenessMs: () => (facts.complete ? Math.max(0, facts.overdueMs() + FENCE_MS) : undefined),
  });
}

function enterState(
  states: States,
  facts: WatchedFacts,
  given: LicetError | undefined,
  lastError: LicetError | undefined,
): void {
  if (given !== undefined) states.enter("FATAL", given);
  else if (!facts.complete) states.enter("ERROR", lastError);
  else if (facts.overdueMs() >= 0) states.enter("STALE", lastError);
  else states.enter("READY");
}

/** What the process before has left, or a beginning from nothing. */
function restore(
  options: LocalOptions,
  { machine, steadyMs, warn }: Environment,
): { readonly clock: TrustedClock; readonly facts: WatchedFacts; readonly cache: DiskCache | undefined } {
  const { apiKey, cacheDir, customerIds } = options;
  const cache =
    cacheDir === undefined
      ? undefined
      : createDiskCache({ directory: cacheDir, secret: apiKey, scope: scopeOf(customerIds), warn });
  const stored = cache?.read();
  const clock = createTrustedClock(machine, {
    mark: stored?.clock?.mark,
    leastMs: stored?.facts?.writtenAtMs ?? 0,
  });
  const saved = stored?.facts && vouched(stored.facts, stored.clock);
  return {
    clock,
    facts: createWatchedFacts({ clock, customerIds, saved, steadyMs }),
    cache,
  };
}

/** The facts as young as the clock's file says, where it is about them. */
function vouched(facts: StoredFacts, clock: StoredClock | undefined): SavedFacts {
  return clock?.facts?.id === facts.id ? { ...facts, ...clock.facts } : facts;
}

function scopeOf(customerIds: readonly string[] | undefined): string {
  return customerIds === undefined ? "all" : hash("sha256", JSON.stringify([...customerIds].sort()));
}

function checkedCustomerIds(customerIds: readonly string[] | undefined): readonly string[] {
  if (customerIds === undefined) return [];
  if (customerIds.length === 0 || customerIds.length > MAX_CUSTOMER_IDS) {
    const found = `names ${customerIds.length} customers`;
    throw invalidArgument(
      "customerIds",
      `${found}, must name 1 to ${MAX_CUSTOMER_IDS}, or be absent for all of the tenant`,
    );
  }
  for (const customerId of customerIds) checkCustomerId(customerId);
  return [...new Set(customerIds)];
}

function unexpected(cause: unknown): LicetError {
  const message = `the watch broke off: ${cause instanceof Error ? cause.message : String(cause)}`;
  return new LicetError({ code: "INTERNAL", reason: "INTERNAL", message, cause });
}

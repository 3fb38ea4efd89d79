import { readFileSync } from "node:fs";
import type { Catalog, CatalogFeature, License } from "@licet/decide/entitlement";
import { createTrustedClock } from "./clock.ts";
import { createDecider, type KnownFacts } from "./decider.ts";
import { questionsOf } from "./deciding.ts";
import { createDiskCache } from "./disk-cache.ts";
import type { Environment } from "./environment.ts";
import { clientClosed, invalidArgument, LicetError } from "./errors.ts";
import { readLicenseFile, type Statement } from "./license-file.ts";
import type { LocalLicet, OfflineOptions } from "./licet.ts";
import { createSaver } from "./saver.ts";
import { createStates } from "./state.ts";

/** How often, in milliseconds, the clock is looked at, the state told and the mark written. */
const TICK_MS = 1_000;
const MAX_FILES = 1_000;
/** Whoever has the files has the machine, so no secret could keep the clock's file from them: its seal finds accidents. */
const CLOCK_SECRET = "licet-sdk/offline";

/** Creates a client that decides itself on signed licenses alone; the files are read here. */
export function createOffline(options: OfflineOptions, environment: Environment): LocalLicet {
  const { statements, errors } = readAll(options);
  const cache =
    options.cacheDir === undefined
      ? undefined
      : createDiskCache({ directory: options.cacheDir, secret: CLOCK_SECRET, scope: "", warn: environment.warn });
  const clock = createTrustedClock(environment.machine, {
    mark: cache?.read().clock?.mark,
    // Nothing was signed in the future.
    leastMs: Math.max(0, ...statements.map(({ issuedAtMs }) => issuedAtMs)),
  });
  const states = createStates();
  const byCustomer = groupByCustomer(statements);
  const decider = createDecider({
    clock,
    factsOf(customerId, nowMs) {
      if (states.closed) throw clientClosed();
      const own = byCustomer.get(customerId);
      return own && factsAt(own, nowMs);
    },
    whyNoFacts: (customerId) => `No license file is about customer ${JSON.stringify(customerId)}.`,
    steadyMs: environment.steadyMs,
  });
  const saver = cache && createSaver({ cache, clock, warn: environment.warn });
  const tick = (): void => {
    if (clock.tick()) decider.forgetAll();
    const nowMs = clock.nowMs();
    const [error] = errors;
    if (statements.length === 0) states.enter("FATAL", error ?? noFiles());
    else if (statements.every(({ freshUntilMs }) => nowMs >= freshUntilMs)) states.enter("STALE", error);
    else states.enter("READY", error);
    saver?.tick();
  };
  tick();
  for (const error of errors) environment.warn(error);
  const timer = setInterval(tick, TICK_MS).unref();
  let closing: Promise<void> | undefined;

  return {
    mode: "offline",
    ...questionsOf(decider),
    get state() {
      return states.state;
    },
    on: states.on,
    ready: states.ready,
    close() {
      closing ??= (async () => {
        clearInterval(timer);
        states.close();
        decider.forgetAll();
        await saver?.finish();
      })();
      return closing;
    },
  };
}

/** What the files state; those that are not good are left out, each with its error. */
function readAll({ licenseFiles, publicKeys }: OfflineOptions): { statements: Statement[]; errors: LicetError[] } {
  if (licenseFiles.length > MAX_FILES) {
    throw invalidArgument("licenseFiles", `names ${licenseFiles.length} files, must name ${MAX_FILES} at most`);
  }
  if (!Array.isArray(publicKeys?.keys)) {
    throw invalidArgument("publicKeys", 'is no JWK set, must be {"keys": [...]} as of /.well-known/jwks.json');
  }
  const statements: Statement[] = [];
  const errors: LicetError[] = [];
  for (const file of licenseFiles) {
    try {
      statements.push(...readLicenseFile(readFileSync(file, "utf8"), publicKeys));
    } catch (cause) {
      const message = `the license file ${file} ${(cause as Error).message}`;
      errors.push(new LicetError({ code: "INVALID_ARGUMENT", reason: "LICENSE_FILE_REFUSED", message, cause }));
    }
  }
  return { statements, errors };
}

function groupByCustomer(statements: readonly Statement[]): ReadonlyMap<string, readonly Statement[]> {
  const groups = new Map<string, Statement[]>();
  for (const statement of statements) {
    const { customerId } = statement;
    groups.set(customerId, [...(groups.get(customerId) ?? []), statement]);
  }
  return groups;
}

/**
 * What is known about a customer at a moment. Statements that are not true any more count only where there is nothing else:
 * then it is they who are told to be too old.
 */
function factsAt(all: readonly Statement[], nowMs: number): KnownFacts {
  const newest = newestOfEach(all);
  const standing = newest.filter(({ trueUntilMs }) => nowMs < trueUntilMs);
  const counting = standing.length > 0 ? standing : newest;
  const issuedAtMs = Math.min(...counting.map((statement) => statement.issuedAtMs));
  const isFresh = counting.every(({ freshUntilMs }) => nowMs < freshUntilMs);
  const [{ tenant, customerId }] = counting as [Statement];
  const changes = all.flatMap(({ freshUntilMs, trueUntilMs }) => [freshUntilMs, trueUntilMs]);
  return {
    snapshot: { tenant, customerId, version: 0n, licenses: counting.map(({ license }) => license) },
    catalogs: new Map(counting.map(({ license }) => [license.product, openCatalog(tenant, license)])),
    usage: undefined,
    overdueMs: standing.length > 0 ? (isFresh ? -1 : 0) : Number.POSITIVE_INFINITY,
    holdsUntilMs: Math.min(...changes.filter((atMs) => atMs > nowMs), Number.POSITIVE_INFINITY),
    stalenessMs: (atMs) => Math.max(0, atMs - issuedAtMs),
  };
}

/** Of several statements about a license, the last one. */
function newestOfEach(all: readonly Statement[]): Statement[] {
  const newest = new Map<string, Statement>();
  for (const statement of all) {
    const { id } = statement.license;
    if ((newest.get(id)?.issuedAtMs ?? Number.NEGATIVE_INFINITY) < statement.issuedAtMs) newest.set(id, statement);
  }
  return [...newest.values()];
}

/**
 * The catalogue of a product of which nothing is known offline: `*` stands for every feature. What is true is relied on to the
 * end of its days, so each feature's grace is longer than any age; and none may be used to reduce what is open, because only
 * the product's real catalogue says which.
 */
function openCatalog(tenant: string, { product }: License): Catalog {
  const feature: CatalogFeature = { reduceOnly: false, failGraceMs: Number.MAX_SAFE_INTEGER };
  return { tenant, product, version: 0n, features: new EveryFeature(feature) };
}

class EveryFeature extends Map<string, CatalogFeature> {
  readonly #feature: CatalogFeature;

  constructor(feature: CatalogFeature) {
    super();
    this.#feature = feature;
  }

  override has(): boolean {
    return true;
  }

  override get(): CatalogFeature {
    return this.#feature;
  }
}

function noFiles(): LicetError {
  return invalidArgument("licenseFiles", "is empty, must name a signed license or token key");
}

import { readFileSync } from "node:fs";
import type { Catalog, CatalogFeature, License } from "@licet/decide/entitlement";
import { createLicensePacker } from "@licet/decide/packed/licenses";
import { createPackedMap, type PackedMap } from "@licet/decide/packed/packed-map";
import { createTrustedClock } from "./clock.ts";
import { createDecider, type KnownFacts } from "./decider.ts";
import { createDeciding } from "./deciding.ts";
import { createDiskCache } from "./disk-cache.ts";
import type { Environment } from "./environment.ts";
import { clientClosed, invalidArgument, LicetError } from "./errors.ts";
import { readLicenseFile, type Statement } from "./license-file.ts";
import type { LocalLicet, OfflineOptions } from "./licet.ts";
import { createSaver } from "./saver.ts";
import { createStates } from "./state.ts";
import type { Telemetry } from "./telemetry.ts";

const MAX_FILES = 1_000;
/** Of how many customers the statements are kept as objects too, those asked about last; up to twice as many are. */
const MAX_MADE = 100;
/** Whoever has the files has the machine, so no secret could keep the clock's file from them: its seal finds accidents. */
const CLOCK_SECRET = "licet-sdk/offline";

/** Creates a client that decides itself on signed licenses alone; the files are read here. */
export function createOffline(options: OfflineOptions, environment: Environment, telemetry?: Telemetry): LocalLicet {
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
  const freshUntilMs = Math.max(...statements.map((statement) => statement.freshUntilMs));
  const decider = createDecider({
    clock,
    factsOf(customerId, nowMs) {
      if (states.closed) throw clientClosed();
      const own = byCustomer.get(customerId);
      return own && factsAt(own, nowMs);
    },
    whyNoFacts: (customerId) => {
      return { reason: "NOT_COVERED", sentence: `No license file is about customer ${JSON.stringify(customerId)}.` };
    },
    steadyMs: environment.steadyMs,
  });
  const saver = cache && createSaver({ cache, clock, warn: environment.warn });
  for (const error of errors) environment.warn(error);

  return createDeciding({
    mode: "offline",
    decider,
    states,
    tick() {
      if (clock.tick()) decider.forgetAll();
      const nowMs = clock.nowMs();
      const [error] = errors;
      if (byCustomer.size === 0) states.enter("FATAL", error ?? noFiles());
      else if (nowMs >= freshUntilMs) states.enter("STALE", error);
      else states.enter("READY", error);
      saver?.tick();
    },
    async end() {
      decider.forgetAll();
      await saver?.finish();
    },
    telemetry,
    stalenessMs: () => undefined,
  });
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

/** The statements about each customer, packed as a watch's customers are. */
function groupByCustomer(statements: readonly Statement[]): PackedMap<readonly Statement[]> {
  const groups = createPackedStatements();
  for (const statement of statements) {
    const { customerId } = statement;
    groups.set(customerId, [...(groups.peek(customerId) ?? []), statement]);
  }
  return groups;
}

function createPackedStatements(): PackedMap<readonly Statement[]> {
  const packer = createLicensePacker();
  return createPackedMap<readonly Statement[]>(
    {
      write(statements, to) {
        // First: it is all that is needed when the rest goes.
        packer.write(
          statements.map(({ license }) => license),
          to,
        );
        for (const { tenant, issuedAtMs, freshUntilMs, trueUntilMs } of statements) {
          to.text(tenant);
          for (const time of [issuedAtMs, freshUntilMs, trueUntilMs]) to.double(time);
        }
      },
      // In the order in which they were written.
      read: (from, customerId) =>
        packer.read(from).map((license) => ({
          customerId,
          license,
          tenant: from.text(),
          issuedAtMs: from.double(),
          freshUntilMs: from.double(),
          trueUntilMs: from.double(),
        })),
      release: packer.release,
    },
    MAX_MADE,
  );
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
    usageStalenessMs: () => undefined,
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

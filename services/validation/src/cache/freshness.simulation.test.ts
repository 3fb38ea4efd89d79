import { decide } from "@licet/decide/decide";
import type { Catalog, License } from "@licet/decide/entitlement";
import { simulation } from "@licet/platform/testing/simulation";
import fc from "fast-check";
import { createFreshness } from "./freshness.ts";
import { createLicensingClock } from "./licensing-clock.ts";

const fenceMs = 30_000;
const graceMs = 60_000;
/** How far clocks may part in a second, and for how long that is not allowed for: the assumptions of `licensing-clock.ts`. */
const drift = 500e-6;
const driftFreeMs = 120_000;

/** What happens next. */
type Happening =
  | { readonly kind: "pass"; readonly ms: number }
  /** The machine sleeps: its steady clock stands still. */
  | { readonly kind: "sleep"; readonly ms: number }
  | { readonly kind: "set"; readonly ms: number }
  | { readonly kind: "beat"; readonly partition: number; readonly delayMs: number }
  | { readonly kind: "calibrate"; readonly thereMs: number; readonly backMs: number };

const anyMs = fc.oneof(fc.nat(2_000), fc.nat(200_000));
const anyTime = fc.oneof(
  { weight: 4, arbitrary: anyMs.map((ms): Happening => ({ kind: "pass", ms })) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("beat" as const),
      partition: fc.nat(2),
      delayMs: fc.oneof(fc.nat(500), fc.nat(90_000)),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("calibrate" as const), thereMs: fc.nat(800), backMs: fc.nat(800) }),
  },
);
// A clock set back and a sleep between two calibrations can't be told from each other: a course has one kind of them.
const anyTrouble = fc.oneof(
  fc.constant([]),
  fc.array(
    fc.oneof(
      anyTime,
      anyMs.map((ms): Happening => ({ kind: "sleep", ms })),
    ),
    { maxLength: 40 },
  ),
  fc.array(
    fc.oneof(
      anyTime,
      fc.integer({ min: -7_200_000, max: 7_200_000 }).map((ms): Happening => ({ kind: "set", ms })),
    ),
    { maxLength: 40 },
  ),
);

/** The database's clock is true here; this machine's two clocks run by `rate` of it. */
class World {
  readonly freshness;
  readonly clock;
  /** Time by the database, the last issue time that arrived in each partition, and when the facts were first read. */
  databaseMs = 1_900_000_000_000;
  readonly issuedMs = [0, 0, 0];
  calibratedMs = 0;
  rttMs = 0;
  #wallMs: number;
  #steadyMs = 70;
  readonly #rate: number;

  constructor(offsetMs: number, rate: number) {
    this.#wallMs = this.databaseMs + offsetMs;
    this.#rate = rate;
    this.clock = createLicensingClock(() => ({ wallMs: this.#wallMs, steadyMs: this.#steadyMs }));
    this.freshness = createFreshness(this.issuedMs.length, this.clock.latestMs);
  }

  pass(ms: number, asleep = false): void {
    this.databaseMs += ms;
    this.#wallMs += ms * this.#rate;
    if (!asleep) this.#steadyMs += ms * this.#rate;
  }

  calibrate(thereMs: number, backMs: number): void {
    const askedAt = this.clock.now();
    this.pass(thereMs);
    const told = this.databaseMs;
    this.pass(backMs);
    this.clock.calibrate(askedAt, told);
    this.calibratedMs = this.databaseMs;
    this.rttMs = thereMs + backMs;
  }

  happen(happening: Happening): void {
    if (happening.kind === "pass") this.pass(happening.ms);
    else if (happening.kind === "sleep") this.pass(happening.ms, true);
    else if (happening.kind === "set") this.#wallMs += happening.ms;
    else if (happening.kind === "calibrate") this.calibrate(happening.thereMs, happening.backMs);
    else {
      const { partition, delayMs } = happening;
      const issuedMs = this.databaseMs - delayMs;
      this.freshness.heard(partition, issuedMs);
      this.issuedMs[partition] = Math.max(this.issuedMs[partition] ?? 0, issuedMs);
    }
  }

  /** How old the facts are in truth: as the partition that is behind the furthest. */
  trueStalenessMs(): number {
    return this.databaseMs - Math.min(...this.issuedMs);
  }

  begin(): void {
    this.freshness.begin(this.databaseMs);
    this.issuedMs.fill(this.databaseMs);
  }

  /** What clocks that part may hide: allowed for beyond two minutes, and the two together by a square. */
  hiddenMs(): number {
    const sinceMs = this.databaseMs - this.calibratedMs;
    return Math.min(sinceMs, driftFreeMs) * drift + sinceMs * drift * drift * 2 + this.rttMs * drift + 1;
  }
}

const license: License = {
  id: "l1",
  type: "STANDARD",
  product: "trading",
  plan: undefined,
  planVersion: 0,
  status: "ACTIVE",
  features: new Set(["closed", "graced"]),
  limits: [],
  addOns: [],
  grants: new Map(),
  validFromMs: 0,
  validUntilMs: undefined,
  graceDays: 0,
  endedAtMs: undefined,
};
const catalog: Catalog = {
  tenant: "tradsys",
  product: "trading",
  version: 1n,
  features: new Map([
    ["closed", { reduceOnly: false, failGraceMs: 0 }],
    ["graced", { reduceOnly: false, failGraceMs: graceMs }],
  ]),
};

function isAllowed(feature: string, stalenessMs: number): boolean {
  const snapshot = { tenant: "tradsys", customerId: "c", version: 1n, licenses: [license] };
  const facts = {
    snapshot,
    catalogs: new Map([["trading", catalog]]),
    usage: undefined,
    overdueMs: stalenessMs - fenceMs,
  };
  const question = { customerId: "c", feature, product: undefined, values: new Map() };
  return decide(question, facts, 1).decision === "ALLOW";
}

/** Compares what is told with the truth, and what is decided with the promise. */
function check(world: World, clockWasSet: boolean): void {
  const told = world.freshness.stalenessMs();
  const truth = world.trueStalenessMs();
  const hidden = world.hiddenMs();
  if (told < truth - world.rttMs / 2 - hidden) throw new Error(`told ${told} ms, the facts are ${truth} ms old`);
  const surplus = world.rttMs + (world.databaseMs - world.calibratedMs) * drift * 2 + 1;
  // A clock that was set ahead makes facts look older until the next calibration, which is the safe side.
  if (!clockWasSet && told > truth + surplus) throw new Error(`told ${told} ms, the facts are ${truth} ms old only`);
  const lateMs = truth - world.rttMs / 2 - hidden;
  if (lateMs >= fenceMs && isAllowed("closed", told)) throw new Error(`a closed feature is allowed at ${truth} ms`);
  if (lateMs >= fenceMs + graceMs && isAllowed("graced", told)) throw new Error(`a grace lasts ${truth} ms`);
  if (told < fenceMs && !isAllowed("closed", told)) throw new Error(`a closed feature is denied at ${told} ms`);
  if (told < fenceMs + graceMs && !isAllowed("graced", told)) throw new Error(`a grace ended at ${told} ms`);
}

simulation("staleness is never told lower than it is, whatever clocks and heartbeats do", { runs: 2_000 }, () =>
  fc.property(
    fc.integer({ min: -7_200_000, max: 7_200_000 }),
    fc.double({ min: 1 - drift, max: 1 + drift, noNaN: true }),
    fc.array(anyTime, { maxLength: 20 }),
    anyTrouble,
    (offsetMs, rate, first, trouble) => {
      const world = new World(offsetMs, rate);
      world.calibrate(20, 20);
      world.begin();
      let clockWasSet = false;
      for (const happening of [...first, ...trouble]) {
        world.happen(happening);
        if (happening.kind === "set") clockWasSet = true;
        if (happening.kind === "calibrate") clockWasSet = false;
        check(world, clockWasSet);
      }
    },
  ),
);

simulation("a log that delivers everything a minute late is stale all the time", { runs: 200 }, () =>
  fc.property(fc.array(fc.nat(3_000), { minLength: 1, maxLength: 100 }), fc.nat(1_000), (pauses, rttMs) => {
    const world = new World(0, 1);
    world.calibrate(rttMs, 0);
    world.freshness.begin(world.databaseMs - 60_000);
    for (const ms of pauses) {
      world.pass(ms);
      for (const partition of world.issuedMs.keys()) world.freshness.heard(partition, world.databaseMs - 60_000);
      const told = world.freshness.stalenessMs();
      if (told < fenceMs || isAllowed("closed", told)) throw new Error(`told ${told} ms, and a closed feature allowed`);
    }
  }),
);

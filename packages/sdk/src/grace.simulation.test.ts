import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  type WatchEntitlementsResponse,
  WatchEntitlementsResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { simulation } from "@licet/platform/testing/simulation";
import fc from "fast-check";
import { createTrustedClock, type Moment, NOTED_MS, type TrustedClock } from "./clock.ts";
import type { DiskCache, StoredClock, StoredFacts } from "./disk-cache.ts";
import { createWatchedFacts, FENCE_MS, type WatchedFacts } from "./facts.ts";
import { createSaver, type Saver } from "./saver.ts";

const GRACE_MS = 60_000;
/** What a tick, a call and whole milliseconds may hide. */
const TOLERANCE_MS = 2_500;

/** What happens next. Only in `pass` the process runs, and may allow. */
type Happening =
  | { readonly kind: "pass"; readonly ms: number }
  /** The machine sleeps: its steady clock stands still. */
  | { readonly kind: "sleep"; readonly ms: number }
  | { readonly kind: "set"; readonly ms: number }
  /** The server tells that all is well, in an answer that took so long. */
  | { readonly kind: "beat"; readonly rttMs: number }
  /** The process ends, by a close or by a kill, and starts again so long after, on a machine that was rebooted. */
  | { readonly kind: "restart"; readonly clean: boolean; readonly offMs: number };

const anyMs = fc.oneof(fc.nat(5_000), fc.nat(200_000));
const honestHappenings = [
  { weight: 6, arbitrary: anyMs.map((ms): Happening => ({ kind: "pass", ms })) },
  { weight: 2, arbitrary: anyMs.map((ms): Happening => ({ kind: "sleep", ms })) },
  { weight: 3, arbitrary: fc.nat(800).map((rttMs): Happening => ({ kind: "beat", rttMs })) },
  { weight: 1, arbitrary: anyMs.map((offMs): Happening => ({ kind: "restart", clean: true, offMs })) },
];
const anyHonest = fc.oneof(...honestHappenings);
const anyHostile = fc.oneof(
  ...honestHappenings,
  { weight: 4, arbitrary: fc.integer({ min: -400_000, max: 400_000 }).map((ms): Happening => ({ kind: "set", ms })) },
  { weight: 4, arbitrary: anyMs.map((offMs): Happening => ({ kind: "restart", clean: false, offMs })) },
);

class World {
  /** Time by the server. */
  trueMs = 1_900_000_000_000;
  /** When the facts that are known were true, by the server. */
  factsMs = 0;
  /** For how long the process has run, and a graced feature was allowed, since then. */
  allowedMs = 0;
  /** For how long the machine has slept since then. */
  sleptMs = 0;
  clock: TrustedClock;
  facts: WatchedFacts;
  #saver: Saver;
  #wallMs: number;
  #steadyMs = 50;
  #disk: { facts: StoredFacts | undefined; clock: StoredClock | undefined } = { facts: undefined, clock: undefined };

  constructor(offsetMs: number) {
    this.#wallMs = this.trueMs + offsetMs;
    [this.clock, this.facts, this.#saver] = this.#start();
  }

  async happen(happening: Happening): Promise<void> {
    switch (happening.kind) {
      case "pass":
        for (let left = happening.ms; left > 0; left -= 1_000) await this.#run(Math.min(left, 1_000));
        break;
      case "sleep":
        this.trueMs += happening.ms;
        this.#wallMs += happening.ms;
        this.sleptMs += happening.ms;
        // Timers that were due in the sleep fire behind it.
        await this.#tick();
        break;
      case "set":
        this.#wallMs += happening.ms;
        break;
      case "beat":
        this.#beat(happening.rttMs);
        break;
      case "restart":
        if (happening.clean) await this.#saver.finish();
        this.trueMs += happening.offMs;
        this.#wallMs += happening.offMs;
        this.#steadyMs = 20;
        [this.clock, this.facts, this.#saver] = this.#start();
        await this.#tick();
    }
  }

  allows(feature: string): boolean {
    return this.facts.check("c", feature).allowed;
  }

  #start(): [TrustedClock, WatchedFacts, Saver] {
    const machine = (): Moment => ({ wallMs: this.#wallMs, steadyMs: this.#steadyMs });
    const { facts: stored, clock: storedClock } = this.#disk;
    const clock = createTrustedClock(machine, { mark: storedClock?.mark, leastMs: stored?.writtenAtMs ?? 0 });
    const saved = stored && (storedClock?.facts?.id === stored.id ? { ...stored, ...storedClock.facts } : stored);
    const facts = createWatchedFacts({ clock, saved, steadyMs: () => this.#steadyMs });
    const cache: DiskCache = {
      read: () => this.#disk,
      writeFacts: async (written) =>
        void Object.assign(this.#disk, { facts: { ...written, messages: [...written.messages] } }),
      writeClock: async (written) => void Object.assign(this.#disk, { clock: written }),
    };
    const warn = (error: Error): never => {
      throw error;
    };
    return [clock, facts, createSaver({ cache, clock, facts, warn })];
  }

  async #run(ms: number): Promise<void> {
    const allowed = this.allows("graced");
    this.trueMs += ms;
    this.#wallMs += ms;
    this.#steadyMs += ms;
    if (allowed) this.allowedMs += ms;
    await this.#tick();
  }

  async #tick(): Promise<void> {
    this.facts.tick();
    this.#saver.tick();
    // The disk of this world takes a few turns of the queue and no time.
    for (let turn = 0; turn < 12; turn++) await undefined;
  }

  #beat(rttMs: number): void {
    const askedAt = this.clock.machine();
    this.trueMs += rttMs;
    this.#wallMs += rttMs;
    this.#steadyMs += rttMs;
    const time = timestampFromMs(this.trueMs);
    const heartbeat = { factsAsOf: time, sentAt: time };
    for (const content of this.facts.complete ? [] : this.#firstState()) this.facts.apply(content, askedAt);
    this.facts.apply(response({ case: "synchronized", value: heartbeat }), askedAt);
    this.factsMs = this.trueMs;
    this.allowedMs = 0;
    this.sleptMs = 0;
  }

  #firstState(): WatchEntitlementsResponse[] {
    const features = [
      { feature: "closed", failMode: { mode: { case: "closed" as const, value: true } } },
      { feature: "graced", failMode: { mode: { case: "graceSeconds" as const, value: GRACE_MS / 1_000 } } },
    ];
    const license = { licenseId: "l", product: "p", features: ["*"], status: LicenseStatus.ACTIVE };
    return [
      response({ case: "reset", value: {} }),
      response({ case: "catalog", value: { tenantId: "t", product: "p", version: 1n, features } }),
      response({ case: "snapshot", value: { tenantId: "t", customerId: "c", version: 1n, licenses: [license] } }),
    ];
  }
}

function response(content: NonNullable<MessageInitShape<typeof WatchEntitlementsResponseSchema>["content"]>) {
  return create(WatchEntitlementsResponseSchema, { resumeToken: "t", content });
}

const anyOffset = fc.integer({ min: -7_200_000, max: 7_200_000 });

simulation(
  "while clocks are honest a feature is allowed for its grace, over sleeps and restarts, and no longer",
  {
    runs: 300,
    regressions: [
      { about: "a sleep too short to be noted, behind an answer that is kept", seed: 1844450095, path: "96" },
    ],
  },
  () =>
    fc.asyncProperty(anyOffset, fc.array(anyHonest, { maxLength: 30 }), async (offsetMs, happenings) => {
      const world = new World(offsetMs);
      await world.happen({ kind: "beat", rttMs: 20 });
      await world.happen({ kind: "pass", ms: 2_000 });
      for (const happening of happenings) {
        await world.happen(happening);
        const ageMs = world.trueMs - world.factsMs;
        for (const [feature, spanMs] of [
          ["closed", FENCE_MS],
          ["graced", FENCE_MS + GRACE_MS],
        ] as const) {
          // So long a sleep is not noted, and an answer that was kept before it stays for as long by the steady clock.
          const mostMs = spanMs + Math.min(world.sleptMs, NOTED_MS);
          if (ageMs >= mostMs && world.allows(feature)) throw new Error(`${feature} is allowed at ${ageMs} ms`);
          if (ageMs < spanMs - TOLERANCE_MS && !world.allows(feature))
            throw new Error(`${feature} is denied at ${ageMs} ms`);
        }
      }
    }),
);

simulation(
  "no clock that is set, no kill and no restart gives a feature more than its grace to run",
  { runs: 500 },
  () =>
    fc.asyncProperty(anyOffset, fc.array(anyHostile, { maxLength: 40 }), async (offsetMs, happenings) => {
      const world = new World(offsetMs);
      await world.happen({ kind: "beat", rttMs: 20 });
      await world.happen({ kind: "pass", ms: 2_000 });
      for (const happening of happenings) {
        await world.happen(happening);
        const most = FENCE_MS + GRACE_MS + TOLERANCE_MS;
        if (world.allowedMs > most)
          throw new Error(`allowed for ${world.allowedMs} ms since facts were heard, not ${most}`);
      }
    }),
);

import { between, pick, randomFrom } from "../random.ts";

/** The kinds of faults, as `--only` takes them. */
export const faultKinds = [
  "kill",
  "term",
  "stop",
  "clock",
  "broker",
  "postgres",
  "redis",
  "link",
  "partition",
] as const;

/** A kind of fault. */
export type FaultKind = (typeof faultKinds)[number];

/** What is done to a link. */
const linkFaults = ["delay", "slow", "drop", "reset", "half-open", "no requests", "no answers", "cut"] as const;

/** One fault: what is done to what, and for how long. */
export interface Fault {
  /** Milliseconds after the beginning at which it is due. */
  readonly atMs: number;
  readonly kind: FaultKind;
  /** The replica, broker (`broker-1`) or link (`validation-1>kafka`); or `postgres`, `redis`. Nothing else happens to it meanwhile. */
  readonly target: string;
  /** How it is done, where there is a choice; of a clock the offset in milliseconds. */
  readonly how: string;
  /** How long it lasts, in milliseconds; 0 where it is over at once. */
  readonly forMs: number;
}

/** What there is to be broken. */
export interface Targets {
  readonly replicas: readonly string[];
  readonly brokers: readonly string[];
  readonly links: readonly string[];
}

/** How often each kind is drawn. */
const weights: Readonly<Record<FaultKind, number>> = {
  kill: 32,
  term: 8,
  stop: 9,
  clock: 6,
  broker: 8,
  postgres: 9,
  redis: 6,
  link: 20,
  partition: 2,
};

/** The pause between two faults, in milliseconds: short enough for over a hundred kills in twenty minutes. */
const PAUSE_MS = { least: 1_000, most: 5_500 };
/** In a long run one pause of so many is a quiet one, so that what is promised of a healthy mesh can be seen too. */
const QUIET_ONE_OF = 30;
const QUIET_MS = 25_000;
/** From when on a run is long enough for a partition that outlasts the fence of 30 s. */
const LONG_RUN_MS = 150_000;
/** By how much clocks of validation may differ, in milliseconds, and of services that store times. */
const CLOCK_MS = { validation: 300_000, others: 20_000 };

/** Draws the faults of a run from its seed: the same seed, the same faults in the same order. */
export function planFaults(
  seed: number,
  runMs: number,
  targets: Targets,
  only: readonly FaultKind[] = faultKinds,
): Fault[] {
  const random = randomFrom(seed);
  const kinds = only.filter((kind) => isPossible(kind, targets) && (only.length === 1 || fits(kind, runMs)));
  const drawn = kinds.flatMap((kind) => Array.from({ length: weights[kind] }, () => kind));
  if (drawn.length === 0) return [];
  const faults: Fault[] = [];
  const pauseMs = (): number =>
    runMs >= LONG_RUN_MS && random() < 1 / QUIET_ONE_OF ? QUIET_MS : between(random, PAUSE_MS.least, PAUSE_MS.most);
  for (let atMs = between(random, 500, 2_000); atMs < runMs; atMs += pauseMs()) {
    const fault = draw(pick(random, drawn), targets, random);
    // So that a short run does not consist of one fault.
    const longest = fault.kind === "partition" ? fault.forMs : Math.max(2_000, runMs / 5);
    faults.push({ ...fault, atMs, forMs: Math.min(fault.forMs, longest) });
  }
  return faults;
}

function isPossible(kind: FaultKind, targets: Targets): boolean {
  return kind !== "broker" || targets.brokers.length > 0;
}

function fits(kind: FaultKind, runMs: number): boolean {
  return kind !== "partition" || runMs >= LONG_RUN_MS;
}

function draw(kind: FaultKind, targets: Targets, random: () => number): Omit<Fault, "atMs"> {
  const replica = (): string => pick(random, targets.replicas);
  const validation = (): string =>
    pick(
      random,
      targets.replicas.filter((name) => name.startsWith("validation")),
    );
  // From one second to thirty, mostly short.
  const standstillMs = Math.round(1_000 + 29_000 * random() ** 3);
  switch (kind) {
    case "kill":
      return { kind, target: replica(), how: "SIGKILL", forMs: 0 };
    case "term":
      return { kind, target: replica(), how: "SIGTERM", forMs: 0 };
    case "stop":
      return { kind, target: replica(), how: "SIGSTOP", forMs: standstillMs };
    case "clock":
      return drawClock(random() < 0.6 ? validation() : replica(), random);
    case "broker":
      return {
        kind,
        target: pick(random, targets.brokers),
        how: pick(random, ["SIGKILL", "SIGKILL", "SIGSTOP", "SIGTERM"]),
        forMs: between(random, 1_000, 15_000),
      };
    case "postgres":
      return { kind, target: "postgres", how: pick(random, ["SIGKILL", "SIGKILL", "SIGINT"]), forMs: 0 };
    case "redis":
      return { kind, target: "redis", how: pick(random, ["FLUSHALL", "SIGKILL", "SIGSTOP"]), forMs: standstillMs };
    case "link":
      return {
        kind,
        target: pick(random, targets.links),
        how: pick(random, linkFaults),
        forMs: between(random, 1_000, 15_000),
      };
    case "partition":
      return { kind, target: validation(), how: "no events, no licensing", forMs: between(random, 45_000, 60_000) };
  }
}

function drawClock(target: string, random: () => number): Omit<Fault, "atMs"> {
  const most = target.startsWith("validation") ? CLOCK_MS.validation : CLOCK_MS.others;
  return { kind: "clock", target, how: String(between(random, -most, most)), forMs: 0 };
}

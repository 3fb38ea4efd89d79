import { toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { platformError } from "../errors.ts";
import { createLogger } from "../logging.ts";
import { exampleEvent } from "../testing/example-event.ts";
import { type Regression, simulation } from "../testing/simulation.ts";
import { type Batch, type BusRecord, type OutgoingRecord, StalePositionError, type SubscribeOptions } from "./bus.ts";
import { type Consumed, createConsumer, PoisonError } from "./consumer.ts";

const desc = exampleEvent("example.v1");
const logger = createLogger({ level: "silent", name: "consumer-simulation" });

/** What a record is: one that can be processed, or one that can't for this reason. */
type Kind = "good" | "unreadable" | "poison" | "bug";
/** What befalls a transaction: it fails, its answer is lost after the commit, or it fails as if by a bug, once. */
type Fault = "none" | "fails" | "answer lost" | "flake";
/** What befalls the writing of a dead letter. */
type LetterFault = "none" | "refused" | "answer lost";

interface Course {
  readonly kinds: readonly Kind[];
  /** Readers of the same partition at the same time: more than one is what rebalances and frozen readers come to. */
  readonly readers: number;
  readonly faults: readonly Fault[];
  readonly letterFaults: readonly LetterFault[];
  /** How many records each delivery has at most, and whether its reader's process is a new one. */
  readonly deliveries: readonly { readonly most: number; readonly restarts: boolean }[];
}

/** What may befall a course decides how much is promised of it. */
function anyCourse(readers: number, restarts: boolean, faults: readonly Fault[], letterFaults: readonly LetterFault[]) {
  return fc.record<Course>({
    kinds: fc.array(fc.constantFrom<Kind>("good", "good", "unreadable", "poison", "bug"), {
      minLength: 1,
      maxLength: 8,
    }),
    readers: fc.constant(readers),
    faults: fc.array(fc.constantFrom<Fault>("none", "none", ...faults), { maxLength: 40 }),
    letterFaults: fc.array(fc.constantFrom<LetterFault>("none", "none", ...letterFaults), { maxLength: 10 }),
    deliveries: fc.array(
      fc.record({ most: fc.integer({ min: 1, max: 8 }), restarts: restarts ? fc.boolean() : fc.constant(false) }),
      { maxLength: 30 },
    ),
  });
}

type Handle = SubscribeOptions["handle"];

/** The log, the database with the effects and the group's position, and the dead letters. */
class World {
  readonly log: readonly BusRecord[];
  readonly effects: number[] = [];
  readonly letters: number[] = [];
  position = 0n;
  readonly #course: Course;
  readonly #step: (label: string) => Promise<void>;
  #transactions = 0;
  #published = 0;
  #delivered = 0;

  constructor(course: Course, step: (label: string) => Promise<void>) {
    this.#course = course;
    this.#step = step;
    this.log = course.kinds.map((kind, number) => {
      const value = toBinary(desc, { $typeName: "example.v1.ExampleEvent", subject: kind, number });
      const place = { topic: "example.v1", partition: 0, offset: BigInt(number), key: "s", headers: {} };
      return { ...place, value: kind === "unreadable" ? Uint8Array.from([255]) : value };
    });
  }

  /** Reads until all is handled, as the readers of both buses do: after a failure from the stored position. */
  async read(): Promise<void> {
    let handle = await this.#open();
    let position: bigint | undefined;
    for (let failures = 0; failures < 200; ) {
      position ??= await this.#load();
      const { most, restarts } = this.#course.deliveries[this.#delivered++] ?? { most: 8, restarts: false };
      if (restarts) handle = await this.#open();
      const from = Number(position);
      const records = this.log.slice(from, from + most);
      if (records.length === 0) return;
      const nextOffset = position + BigInt(records.length);
      const signal = new AbortController().signal;
      try {
        await handle({ topic: "example.v1", partition: 0, records, firstOffset: position, nextOffset, signal });
        position = nextOffset;
      } catch {
        failures++;
        position = undefined;
      }
    }
    throw new Error(`the group stands at ${this.position} after 200 failures`);
  }

  async #load(): Promise<bigint> {
    await this.#step("load the position");
    return this.position;
  }

  async #open(): Promise<Handle> {
    const opened = Promise.withResolvers<Handle>();
    await createConsumer({
      bus: {
        publish: (records) => this.#publish(records),
        subscribe: async ({ handle }) => {
          opened.resolve(handle);
          return { caughtUp: async () => undefined, stop: async () => undefined };
        },
      },
      desc,
      reader: { kind: "group", group: "g", loadOffset: () => this.#load() },
      apply: (messages, batch) => this.#apply(messages, batch),
      logger,
    });
    return opened.promise;
  }

  async #apply(messages: readonly Consumed<typeof desc>[], { topic, firstOffset, nextOffset }: Batch): Promise<void> {
    const fault = this.#course.faults[this.#transactions++] ?? "none";
    await this.#step("begin the transaction");
    for (const { record, message } of messages) {
      if (message.subject === "poison") throw new PoisonError(record, "poison");
      if (message.subject === "bug") throw new TypeError("bug");
    }
    if (fault === "flake") throw new TypeError("flake");
    if (fault === "fails") throw platformError("DEPENDENCY_UNAVAILABLE", "no database");
    await this.#step("commit");
    if (this.position !== firstOffset) throw new StalePositionError({ topic, partition: 0, firstOffset });
    this.position = nextOffset;
    this.effects.push(...messages.map(({ message }) => message.number));
    await this.#step("answer");
    if (fault === "answer lost") throw platformError("DEPENDENCY_UNAVAILABLE", "the answer was lost");
  }

  async #publish(records: readonly OutgoingRecord[]): Promise<void> {
    const fault = this.#course.letterFaults[this.#published++] ?? "none";
    await this.#step("publish");
    if (fault === "refused") throw platformError("DEPENDENCY_UNAVAILABLE", "no log");
    this.letters.push(...records.map(({ headers }) => Number(headers["dead-offset"])));
    if (fault === "answer lost") throw platformError("DEPENDENCY_UNAVAILABLE", "the answer was lost");
  }
}

async function play(course: Course, scheduler: fc.Scheduler): Promise<World> {
  const world = new World(course, (label) => scheduler.schedule(Promise.resolve(), label));
  await scheduler.waitFor(Promise.all(Array.from({ length: course.readers }, () => world.read())));
  if (world.position !== BigInt(course.kinds.length)) throw new Error(`the group stands at ${world.position}`);
  const sorted = world.effects.toSorted((a, b) => a - b);
  if (world.effects.join() !== sorted.join()) throw new Error(`applied in the order ${world.effects}`);
  const [twice] = world.effects.filter((number, index) => world.effects.indexOf(number) !== index);
  if (twice !== undefined) throw new Error(`record ${twice} was applied twice`);
  for (const [number, kind] of course.kinds.entries()) {
    const seen = world.effects.includes(number) || world.letters.includes(number);
    if (!seen) throw new Error(`record ${number} (${kind}) was lost`);
    if (kind !== "good" && world.effects.includes(number)) throw new Error(`record ${number} (${kind}) was applied`);
  }
  return world;
}

simulation("several readers that restart apply each event exactly once, and bury no good one", { runs: 150 }, () =>
  fc.asyncProperty(
    anyCourse(2, true, ["fails", "answer lost"], ["refused", "answer lost"]),
    fc.scheduler(),
    async (course, scheduler) => {
      const world = await play(course, scheduler);
      const buried = course.kinds.findIndex((kind, number) => kind === "good" && world.letters.includes(number));
      if (buried >= 0) throw new Error(`record ${buried} is good and was buried`);
    },
  ),
);

const regressions: readonly Regression[] = [
  { about: "letters were forgotten when a redelivery, cut smaller, succeeded", seed: 1652493061, path: "3" },
  { about: "letters were forgotten when events went one by one and one failed", seed: 1913001972, path: "20" },
  { about: "poison was buried with its batch, and again when events went one by one", seed: 2008458932, path: "66" },
  { about: "poison was buried again when moving past it failed", seed: 556991220, path: "129" },
];

simulation(
  "one process applies an event or buries it once, whatever fails and passes again",
  { runs: 150, regressions },
  () =>
    fc.asyncProperty(
      anyCourse(1, false, ["fails", "answer lost", "flake"], ["refused"]),
      fc.scheduler(),
      async (course, scheduler) => {
        const world = await play(course, scheduler);
        for (const number of course.kinds.keys()) {
          const letters = world.letters.filter((one) => one === number).length;
          const applied = world.effects.includes(number);
          if (letters + Number(applied) !== 1)
            throw new Error(`record ${number}: applied ${applied}, ${letters} letters`);
        }
      },
    ),
);

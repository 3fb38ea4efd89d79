import { createBell } from "./bell.ts";
import { type Batch, createEncoder, MAX_BATCH_EVENTS } from "./encode.ts";
import { createRing } from "./ring.ts";
import type { PendingEvent } from "./usage-event.ts";

/** What an {@link Intake} is made of. */
export interface IntakeOptions {
  readonly source: string;
  /** Makes the ids of this run differ from those of every other one. */
  readonly run: string;
  readonly capacity: number;
  readonly flushIntervalMs: number;
}

/** Where events wait in memory, and leave in batches. */
export interface Intake {
  /** How many wait. */
  readonly size: number;
  /** Takes an event; false: as many wait as may. */
  push(event: PendingEvent): boolean;
  /**
   * The next events to go together, when it is time for them: a full batch at once, others after the interval. Undefined
   * once the intake is closed and empty. One at a time may ask.
   */
  gather(): Promise<Batch | undefined>;
  /** Lets nothing wait for others until what is returned is called. */
  hurry(): () => void;
  /** Lets nothing wait any more: all that is there leaves. */
  close(): void;
}

/** Creates an empty intake. */
export function createIntake({ source, run, capacity, flushIntervalMs }: IntakeOptions): Intake {
  const ring = createRing<PendingEvent>(capacity);
  const encoder = createEncoder(source, run);
  const arrived = createBell();
  let closed = false;
  let hurried = 0;
  return {
    get size() {
      return ring.size;
    },
    push(event) {
      if (!ring.push(event)) return false;
      // Whoever gathers sleeps until there is something, and then until there is enough.
      if (ring.size === 1 || ring.size === MAX_BATCH_EVENTS) arrived.ring();
      return true;
    },
    async gather() {
      while (ring.size === 0) {
        if (closed) return undefined;
        await arrived.wait();
      }
      if (ring.size < MAX_BATCH_EVENTS && !closed && hurried === 0) await arrived.wait(flushIntervalMs);
      return encoder.encode(ring.shift);
    },
    hurry() {
      hurried += 1;
      arrived.ring();
      return () => {
        hurried -= 1;
      };
    },
    close() {
      closed = true;
      arrived.ring();
    },
  };
}

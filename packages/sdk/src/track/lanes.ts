/** The two ways from memory to the server: straight, or over a spool on disk. */
import { createBell } from "./bell.ts";
import { type Delivery, deliver } from "./delivery.ts";
import type { Batch } from "./encode.ts";
import type { Intake } from "./intake.ts";
import { openSpool, type Spool, type SpoolOptions } from "./spool.ts";

/** What a lane tells about events. */
export interface LaneListener {
  /** Earlier runs left so many. */
  onInherited(events: number): void;
  /** So many need nothing more: the server has them, or has refused them. */
  onSettled(events: number): void;
  /** Disk or server don't work at the moment; it is tried again. */
  onRetry(error: Error): void;
  /** So many are gone. */
  onLost(kind: "DAMAGED" | "UNDELIVERED", events: number, error: Error): void;
}

/** What a lane needs. An abort of the delivery's signal makes it come to an end soon. */
export interface LaneParts {
  readonly intake: Intake;
  readonly delivery: Delivery;
  readonly listener: LaneListener;
}

/** Between attempts to open the spool, to read it, or to write to it unless it got room before, in milliseconds. */
const DISK_PAUSE_MS = 1_000;

/** Runs from memory to the server until the intake is closed and everything settled, or the signal is aborted. */
export async function runStraight({ intake, delivery, listener }: LaneParts): Promise<void> {
  listener.onInherited(0);
  for (let batch = await intake.gather(); batch !== undefined; batch = await intake.gather()) {
    const settled = await deliver(batch, delivery);
    listener.onSettled(settled);
    if (settled < batch.count) listener.onLost("UNDELIVERED", batch.count - settled, undelivered());
  }
}

/** As {@link runStraight}, but what waits does so on disk, and stays there for the next run where the signal is aborted. */
export async function runOverSpool(options: SpoolOptions, parts: LaneParts): Promise<void> {
  const spool = await openPatiently(options, parts);
  if (spool === undefined) return loseAll(parts);
  const { delivery, listener } = parts;
  const [filled, emptied] = [createBell(), createBell()];
  let writing = true;
  const wake = () => [filled, emptied].forEach((bell) => void bell.ring());
  delivery.signal.addEventListener("abort", wake, { once: true });

  async function write(to: Spool): Promise<void> {
    for (let batch = await parts.intake.gather(); batch !== undefined; batch = await parts.intake.gather()) {
      await keep(to, batch);
      filled.ring();
    }
    writing = false;
    filled.ring();
  }

  async function keep(to: Spool, batch: Batch): Promise<void> {
    for (;;) {
      const error = await attempt(to.append(batch));
      if (error === undefined) return;
      if (delivery.signal.aborted) return listener.onLost("UNDELIVERED", batch.count, error);
      listener.onRetry(error);
      await emptied.wait(DISK_PAUSE_MS);
    }
  }

  /** Nobody waits for a lane before the end: what it throws would end the caller's process. */
  async function rest(error: Error): Promise<undefined> {
    listener.onRetry(error);
    await delivery.sleep(DISK_PAUSE_MS, delivery.signal);
  }

  async function send(from: Spool): Promise<void> {
    while (!delivery.signal.aborted) {
      if (from.events === 0 && !writing) return;
      if (from.events === 0) {
        await filled.wait();
        continue;
      }
      const batch = await from.next().catch(rest);
      if (batch === undefined) continue;
      const settled = await deliver(batch, delivery);
      // What was settled of a part comes again in the next run, and counts once.
      if (settled < batch.count) return;
      const error = await attempt(from.drop());
      if (error !== undefined) listener.onRetry(error);
      listener.onSettled(settled);
      emptied.ring();
    }
  }

  await Promise.all([write(spool), send(spool)]);
  await spool.close();
}

async function openPatiently(options: SpoolOptions, { delivery, listener }: LaneParts): Promise<Spool | undefined> {
  const onDamaged = (events: number, file: string) => {
    const what = events === 0 ? "usage events, how many can't be told," : `${events} usage events`;
    listener.onLost("DAMAGED", events, new Error(`the disk has damaged ${what} in ${file}`));
  };
  while (!delivery.signal.aborted) {
    try {
      return await openSpool(options, { onInherited: listener.onInherited, onDamaged });
    } catch (error) {
      listener.onRetry(error as Error);
      await delivery.sleep(DISK_PAUSE_MS, delivery.signal);
    }
  }
  return undefined;
}

async function loseAll({ intake, listener }: LaneParts): Promise<void> {
  listener.onInherited(0);
  for (let batch = await intake.gather(); batch !== undefined; batch = await intake.gather()) {
    listener.onLost("UNDELIVERED", batch.count, undelivered());
  }
}

function undelivered(): Error {
  return new Error("the time to deliver usage events at the end was over");
}

async function attempt(work: Promise<unknown>): Promise<Error | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

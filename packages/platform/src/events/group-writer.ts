import { platformError } from "../errors.ts";
import type { OutgoingRecord } from "./bus.ts";

/** Most records and bytes of values of one write, unless one call of `publish` alone exceeds them. */
const groupRecords = 2_000;
const groupBytes = 4 * 1024 * 1024;
/** Most records and bytes that wait to be written; beyond it publishing is refused. */
const waitingRecords = 50_000;
const waitingBytes = 64 * 1024 * 1024;

interface Waiting<R> {
  readonly records: readonly R[];
  readonly bytes: number;
  readonly settle: PromiseWithResolvers<void>;
}

/** Writes what concurrent publishers bring in as few writes as possible (group commit). */
export interface GroupWriter<R> {
  /** Resolves when the records are committed; the records of one call stay together. */
  write(records: readonly R[]): Promise<void>;
  /** Resolves when everything accepted so far is written or refused. */
  flushed(): Promise<void>;
}

/**
 * One write is under way at a time and takes what has gathered meanwhile, in its order: no delay for a single
 * publisher, and as many records a commit as the load brings.
 *
 * @param append writes records durably, in their order.
 */
export function createGroupWriter<R extends OutgoingRecord>(
  append: (records: readonly R[]) => Promise<void>,
): GroupWriter<R> {
  const queue: Waiting<R>[] = [];
  let records = 0;
  let bytes = 0;
  let running: Promise<void> | undefined;

  const takeGroup = (): Waiting<R>[] => {
    let taken = 0;
    let takenRecords = 0;
    let takenBytes = 0;
    for (const waiting of queue) {
      takenRecords += waiting.records.length;
      takenBytes += waiting.bytes;
      if (taken > 0 && (takenRecords > groupRecords || takenBytes > groupBytes)) break;
      taken++;
    }
    return queue.splice(0, taken);
  };

  const run = async (): Promise<void> => {
    while (queue.length > 0) {
      const group = takeGroup();
      try {
        await append(group.flatMap((waiting) => waiting.records));
        for (const { settle } of group) settle.resolve();
      } catch (error) {
        for (const { settle } of group) settle.reject(error);
      }
      for (const waiting of group) {
        records -= waiting.records.length;
        bytes -= waiting.bytes;
      }
    }
    running = undefined;
  };

  return {
    write(added) {
      const addedBytes = added.reduce((sum, record) => sum + record.value.length, 0);
      if (queue.length > 0 && (records + added.length > waitingRecords || bytes + addedBytes > waitingBytes)) {
        const message = "too many events wait to be written to the log; try again";
        return Promise.reject(platformError("OVERLOADED", message, { retryAfterMs: 1_000 }));
      }
      const settle = Promise.withResolvers<void>();
      queue.push({ records: added, bytes: addedBytes, settle });
      records += added.length;
      bytes += addedBytes;
      running ??= run();
      return settle.promise;
    },
    async flushed() {
      await running;
    },
  };
}

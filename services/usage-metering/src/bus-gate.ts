import { setImmediate as nextTurn } from "node:timers/promises";
import type { EventBus, OutgoingRecord } from "@licet/platform/events/bus";
import type { Logger } from "@licet/platform/logging";
import { isOutage, notAccepted } from "./errors.ts";
import { within } from "./within.ts";

/** The bus behind a gate that closes while it takes nothing. */
export interface BusGate {
  /** Publishes, however long the bus takes to acknowledge or refuse it. @throws as {@link EventBus.publish}. */
  publish(records: readonly OutgoingRecord[]): Promise<void>;
  /**
   * Publishes and waits at most `patienceMs` for the acknowledgement. While the bus is down it refuses at once, unless
   * nothing is under way that would find out that it is back.
   *
   * @throws {ServiceError} UNAVAILABLE (DEPENDENCY_UNAVAILABLE), with a time to retry after: the outcome is unknown.
   * @throws as {@link EventBus.publish} otherwise.
   */
  offer(records: readonly OutgoingRecord[], patienceMs: number): Promise<void>;
}

/** A publication that takes longer than this, in milliseconds, shows that the bus is down; healthy, it takes a few. */
const PATIENCE_MS = 2_000;

/**
 * Creates the gate of a bus. kafkajs tries for up to half a minute before it gives a publication up; without a gate each
 * call of an outage would wait out its deadline, and what it sent would wait in memory.
 *
 * Down is what the last publication to end has shown, or one that takes too long. From then on one publication is under
 * way at a time, and how it ends shows it anew: there is no pause to be chosen, and no call waits but the one that tries.
 */
export function createBusGate(bus: Pick<EventBus, "publish">, logger: Logger): BusGate {
  let down = false;
  let underWay = 0;
  const show = (isDown: boolean, err?: unknown): void => {
    if (isDown === down) return;
    down = isDown;
    if (down) logger.warn({ err }, "the event log takes no usage events");
    else logger.info("the event log takes usage events again");
  };

  const publish = async (records: readonly OutgoingRecord[]): Promise<void> => {
    underWay += 1;
    const timer = setTimeout(() => show(true, new Error(`no answer for ${PATIENCE_MS} ms`)), PATIENCE_MS);
    try {
      await bus.publish(records);
      show(false);
    } catch (error) {
      if (isOutage(error)) show(true, error);
      throw error;
    } finally {
      clearTimeout(timer);
      underWay -= 1;
    }
  };

  return {
    publish,
    async offer(records, patienceMs) {
      if (down && underWay > 0) {
        // A caller in this process who repeats at once must not keep the process from hearing the bus.
        await nextTurn();
        throw notAccepted(new Error("the event log is down"));
      }
      try {
        await within(patienceMs, publish(records), () =>
          notAccepted(new Error("the event log did not answer in time")),
        );
      } catch (error) {
        throw isOutage(error) ? notAccepted(error) : error;
      }
    },
  };
}

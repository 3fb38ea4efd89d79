import { asSystem, inTenant } from "@licet/platform/database/database";
import type { OutgoingRecord } from "@licet/platform/events/bus";
import type { Call } from "@licet/platform/rpc/call";
import type { Context } from "../context.ts";
import { isOutage, notAccepted, spoolFull } from "../errors.ts";
import { addSpooled, measureSpool } from "../store/spool.ts";
import { within } from "../within.ts";

/** Of the time that is left to answer: what the log may take, and of the rest what the spool may take. */
const LOG_SHARE = 0.5;
const SPOOL_SHARE = 0.8;

/**
 * Makes the records of accepted events durable: in the log or, where that is set up and the log is down, in the spool.
 * When it returns they will be counted. They may be in both: what the log did not acknowledge in time can be in it all
 * the same, and a repetition counts once.
 *
 * @throws {ServiceError} UNAVAILABLE before the call's deadline, with a time to retry after: DEPENDENCY_UNAVAILABLE when
 *   neither can be reached, SPOOL_FULL when no more may be spooled.
 */
export async function accept(ctx: Context, call: Call, records: readonly OutgoingRecord[]): Promise<void> {
  const { deadlineAt = Date.now() + call.policy.deadlineMs } = call;
  const leftMs = (): number => Math.max(0, deadlineAt - Date.now());
  try {
    await ctx.gate.offer(records, leftMs() * LOG_SHARE);
  } catch (error) {
    const { spool } = ctx;
    if (spool === undefined || !isOutage(error)) throw error;
    const spooled = addToSpool(ctx, call, records, spool.maxEvents, error);
    await within(leftMs() * SPOOL_SHARE, spooled, () => notAccepted(error));
  }
  ctx.metrics.accepted.add(records.length);
}

/** @param why the log was not to be had, for the log of this service. */
async function addToSpool(
  ctx: Context,
  call: Call,
  records: readonly OutgoingRecord[],
  maxEvents: number,
  why: unknown,
): Promise<void> {
  try {
    // Only the system role sees how much is spooled. Calls that look at the same moment can go over the limit together,
    // each by one request.
    const { events } = await asSystem(ctx.db, measureSpool);
    if (events + records.length > maxEvents) throw spoolFull(why);
    const { tenant, signal } = call;
    await inTenant(ctx.db, tenant, (tx) => addSpooled(tx, tenant, records), { signal });
  } catch (error) {
    throw isOutage(error) ? notAccepted(error) : error;
  }
}

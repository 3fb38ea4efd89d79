/**
 * Loaded by a replica before its own code: shifts its clock, and plants a bug. Only the chaos run loads it, so the
 * services themselves have no switch for either.
 */
import { plant } from "../planting.ts";
import { plantedBugs } from "./planted.ts";

const offsetMs = Number(process.env.LICET_CHAOS_CLOCK_OFFSET_MS ?? 0);
if (offsetMs !== 0) shiftClock(offsetMs);

const planted = process.env.LICET_CHAOS_PLANTED;
if (planted !== undefined) {
  const bug = plantedBugs[planted];
  if (bug === undefined) throw new Error(`there is no planted bug ${JSON.stringify(planted)}`);
  plant(bug.patches);
}

/** What asks the wall clock gets a time so far ahead; `performance.now` stays. */
function shiftClock(aheadMs: number): void {
  const RealDate = Date;
  const now = RealDate.now.bind(RealDate);
  RealDate.now = () => now() + aheadMs;
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, args, asked) =>
      Reflect.construct(target, args.length === 0 ? [target.now()] : args, asked === globalThis.Date ? target : asked),
    apply: (target) => new target(target.now()).toString(),
  });
}

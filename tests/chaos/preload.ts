/**
 * Loaded by a replica before its own code: shifts its clock, and plants a bug. Only the chaos run loads it, so the
 * services themselves have no switch for either.
 */
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { applyPatches, patchesByUrl } from "./planted.ts";

const offsetMs = Number(process.env.LICET_CHAOS_CLOCK_OFFSET_MS ?? 0);
if (offsetMs !== 0) shiftClock(offsetMs);

const planted = process.env.LICET_CHAOS_PLANTED;
if (planted !== undefined) plant(planted);

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

/** Replaces the snippets of the bug as the modules are loaded, before their types are stripped. */
function plant(name: string): void {
  const patches = patchesByUrl(name);
  registerHooks({
    load(url, context, nextLoad) {
      const own = patches.get(url);
      const loaded = nextLoad(url, context);
      if (own === undefined) return loaded;
      return { ...loaded, source: applyPatches(readFileSync(new URL(url), "utf8"), own) };
    },
  });
}

import type { CountedWindow, UsageLevel, UsageLevels } from "../entitlement.ts";
import { isUuid, type Reader, type Writer } from "./bytes.ts";

const DAY_MS = 86_400_000;

// Their places are what is written: none may move.
const windows: readonly CountedWindow[] = ["PER_DAY", "PER_MONTH", "LIFETIME"];
const WINDOW_MASK = 3;
/** How a license is told: not at all, as that of the level before, as a UUID, as a text. */
const NONE = 0;
const SAME = 1 << 2;
const UUID = 2 << 2;
const TEXT = 3 << 2;
const LICENSE_MASK = 3 << 2;

/** Writes what a customer has used into few bytes. */
export function writeUsageLevels(levels: UsageLevels, to: Writer): void {
  to.count(levels.size);
  for (const [metric, counters] of levels) {
    to.text(metric);
    to.count(counters.length);
    let before: string | undefined;
    for (const counter of counters) before = writeLevel(counter, before, to);
  }
}

/** What {@link writeUsageLevels} wrote. */
export function readUsageLevels(from: Reader): UsageLevels {
  const levels = new Map<string, UsageLevel[]>();
  for (let metrics = from.count(); metrics > 0; metrics--) {
    const metric = from.text();
    const counters: UsageLevel[] = [];
    for (let more = from.count(); more > 0; more--) counters.push(readLevel(counters.at(-1)?.licenseId, from));
    levels.set(metric, counters);
  }
  return levels;
}

/** @returns the license of the level, for the next one. */
function writeLevel(level: UsageLevel, before: string | undefined, to: Writer): string | undefined {
  const { window, licenseId, windowStartMs, used } = level;
  const how = licenseId === undefined ? NONE : licenseId === before ? SAME : isUuid(licenseId) ? UUID : TEXT;
  to.byte(windows.indexOf(window) | how);
  if (licenseId !== undefined && how === UUID) to.uuid(licenseId);
  if (licenseId !== undefined && how === TEXT) to.text(licenseId);
  // Days and months begin at midnight.
  if (windowStartMs !== undefined) to.count(Math.floor(windowStartMs / DAY_MS));
  to.text(used);
  return licenseId;
}

function readLevel(before: string | undefined, from: Reader): UsageLevel {
  const head = from.byte();
  const window = windows[head & WINDOW_MASK] ?? "LIFETIME";
  const how = head & LICENSE_MASK;
  const licenseId = how === NONE ? undefined : how === SAME ? before : how === UUID ? from.uuid() : from.text();
  const windowStartMs = window === "LIFETIME" ? undefined : from.count() * DAY_MS;
  return { window, licenseId, windowStartMs, used: from.text() };
}

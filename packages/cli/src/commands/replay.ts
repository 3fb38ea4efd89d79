import { type ReplayFrom, replay } from "@licet/platform/events/outbox";
import { databaseOf, type Environment } from "../settings.ts";

/** Marks the history from a place on as pending again. @param place an event's id, or a time in RFC 3339. */
export async function replayEvents(place: string, env: Environment): Promise<string> {
  const from = parsePlace(place);
  const { events, firstId } = await replay(databaseOf(env, "licensing").systemUrl, from);
  if (firstId === undefined) return `No event of the history lies at or behind ${place}: nothing is published again.\n`;
  return `${events} events from id ${firstId} on are pending; licensing publishes them within moments.\n`;
}

function parsePlace(place: string): ReplayFrom {
  if (/^\d{1,18}$/.test(place)) return { id: BigInt(place) };
  const time = new Date(place);
  if (!/^\d{4}-\d\d-\d\dT/.test(place) || Number.isNaN(time.getTime())) {
    throw new Error(
      `--from: ${JSON.stringify(place)} is neither an event's id nor a time such as 2026-11-22T10:00:00Z`,
    );
  }
  return { time };
}

import type { OutgoingRecord } from "./bus.ts";

/**
 * The key of heartbeats. Published records can't have it, as their keys hold no NUL. A key it must be: compacted topics
 * take no record without one, and keep only the last heartbeat.
 */
const heartbeatKey = "\0heartbeat";
/** The header that says when a heartbeat was issued, as CloudEvents writes times. */
const timeHeader = "ce_time";

/** A heartbeat as a record: a CloudEvent without data, so that foreign readers can tell it by its type and pass over it. */
export function heartbeatRecord(topic: string, issuedAt: Date): OutgoingRecord {
  const time = issuedAt.toISOString();
  const headers = {
    ce_specversion: "1.0",
    ce_id: time,
    ce_source: "licet",
    ce_type: "dev.licet.heartbeat",
    [timeHeader]: time,
  };
  return { topic, key: heartbeatKey, headers, value: new Uint8Array() };
}

/** When the heartbeat was issued; undefined for a record that is none. */
export function heartbeatTime({ key, headers }: Pick<OutgoingRecord, "key" | "headers">): Date | undefined {
  if (key !== heartbeatKey) return undefined;
  const issuedAt = new Date(headers[timeHeader] ?? "");
  return Number.isNaN(issuedAt.getTime()) ? undefined : issuedAt;
}

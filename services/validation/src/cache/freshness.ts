/**
 * How old the replica's facts may be. Each second the relay of licensing reads
 * the database's time, publishes all that is pending, and then sends that time
 * through every partition: what was committed before it has been applied once
 * it arrives. An idle topic and a cut one look different only this way, and a
 * log that delivers everything late shows as well: its heartbeats are old.
 */
export interface Freshness {
  /** Facts were read directly from licensing, when its clock showed `atMs`: the age counts from there until heartbeats come. */
  begin(atMs: number): void;
  /** A heartbeat with this issue time was reached in a partition. */
  heard(partition: number, issuedAtMs: number): void;
  /**
   * Milliseconds, by the clock of licensing's database, since the issue time of the oldest partition's last heartbeat,
   * or since `readAtMs` where that is later: when licensing itself told the facts in question. Never negative.
   */
  stalenessMs(readAtMs?: number): number;
  /**
   * The issue time of the oldest partition's last heartbeat: whatever was committed before it has been applied. In epoch
   * milliseconds by the clock of licensing's database.
   */
  asOfMs(): number;
}

/**
 * Creates the freshness of a topic with so many partitions.
 *
 * @param latestMs the latest that the clock of licensing's database can show now.
 */
export function createFreshness(partitions: number, latestMs: () => number): Freshness {
  const issuedAt = new Array<number>(partitions).fill(0);
  let oldestMs = 0;
  const raise = (partition: number, atMs: number): void => {
    issuedAt[partition] = Math.max(issuedAt[partition] ?? 0, atMs);
    oldestMs = Math.min(...issuedAt);
  };
  return {
    begin(atMs) {
      for (const partition of issuedAt.keys()) raise(partition, atMs);
    },
    heard: raise,
    stalenessMs: (readAtMs = 0) => Math.max(0, latestMs() - Math.max(oldestMs, readAtMs)),
    asOfMs: () => oldestMs,
  };
}

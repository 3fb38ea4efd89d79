import type { InstanceRules, InstanceType } from "./instance.ts";

/** How the seats of a product's licenses are held; the contract's SeatPolicy describes each part. */
export interface SeatPolicy {
  readonly mode: "node_locked" | "floating";
  /** How long an instance may be silent; absent: for ever. */
  readonly leaseSeconds?: number;
  readonly rules: InstanceRules;
  /** What happens when a license is to have fewer seats than are taken. */
  readonly belowUse: "refuse" | "block";
}

/** The seats of a license. */
export interface Seats {
  /** Absent: unlimited. */
  readonly maximum?: number;
  readonly used: number;
}

/** A seat that an instance holds. */
export interface Activation {
  activationId: string;
  licenseId: string;
  type: InstanceType;
  /** The instance as the product's rules write it. */
  instanceId: string;
  /** The names of the components that a machine is known by, in order. */
  components: readonly string[];
  displayName: string;
  version: string;
  deploymentId: string;
  activatedAt: Date;
  lastSeenAt: Date;
  /** When the seat is free again unless the instance is heard before; absent: never. */
  leaseUntil?: Date;
}

/** Seats of one license, be they as many as they want: a key that leaked must not fill the database. */
export const MAX_SEATS = 100_000;

/** Whether one more seat may be taken. */
export function hasRoom({ used, maximum = MAX_SEATS }: Seats): boolean {
  return used < Math.min(maximum, MAX_SEATS);
}

/** How often an instance should be heard, in seconds, so that two lost heartbeats cost no seat; 0: it has no lease. */
export function heartbeatSeconds({ leaseSeconds = 0 }: SeatPolicy): number {
  return Math.floor(leaseSeconds / 3);
}

import { fromBinary } from "@bufbuild/protobuf";
import { SeatChangeCause, SeatChangedSchema } from "@licet/contracts/licet/licensing/v1/seat_events_pb";
import type { Played } from "./round.ts";
import { products, type Stage } from "./stage.ts";

const { ACTIVATED, LEASE_EXPIRED } = SeatChangeCause;

/** What a round left that it should not. */
export interface Checked {
  /** Moments at which more seats were given than there were. */
  readonly overAllocations: number;
  readonly findings: readonly string[];
}

interface Left {
  /** Payloads of the seats' events in the order of their writing. */
  readonly events: readonly { version: string; payload: Uint8Array }[];
  readonly activations: readonly { activation_id: string; components: string }[];
  readonly seats: { seats_max: number; seats_used: number } | undefined;
  readonly maximum: number;
}

/**
 * Compares what a round left: its history, which has one order, is played back against a model of seats; then the rows, the
 * count and what callers were told have to be what the model came to.
 */
export async function checkRound(stage: Stage, played: Played): Promise<Checked> {
  const left = await readLeft(stage, played.licenseId);
  const findings = [...played.findings];
  const held = new Map<string, string>();
  const ever = new Set<string>();
  const blocks = "belowUse" in products[played.product];
  let overAllocations = 0;
  for (const [index, event] of left.events.entries()) {
    const { version, cause, activation, seats } = fromBinary(SeatChangedSchema, event.payload);
    const id = activation?.activationId ?? "";
    if (version !== BigInt(index + 1) || event.version !== `${version}`) {
      findings.push(`event ${index + 1} of the seats has version ${version}`);
    }
    if (cause === ACTIVATED) {
      if (ever.has(id)) findings.push(`activation ${id} was made twice`);
      ever.add(id);
      held.set(id, activation?.instanceId ?? "");
    } else if (!held.delete(id)) findings.push(`${SeatChangeCause[cause]} of a seat that nobody held`);
    // Where a license may get fewer seats than are taken, only new ones must not be given. Leases that are over are ended before
    // that is refused, one after the other.
    const judged = blocks ? cause === ACTIVATED : cause !== LEASE_EXPIRED;
    if (judged && held.size > (seats?.maximum ?? Infinity)) overAllocations++;
    if (seats?.used !== held.size) findings.push(`event ${version} tells ${seats?.used} seats, there are ${held.size}`);
  }
  findings.push(...compareRows(played, left, held));
  for (const id of played.granted) if (!ever.has(id)) findings.push(`activation ${id} was granted and is in no event`);
  if (!blocks && left.activations.length > left.maximum) overAllocations++;
  return { overAllocations, findings };
}

function compareRows(played: Played, left: Left, held: ReadonlyMap<string, string>): string[] {
  const findings: string[] = [];
  const rows = new Set(left.activations.map(({ activation_id }) => activation_id));
  if (rows.size !== held.size || [...rows].some((id) => !held.has(id))) {
    findings.push(`${rows.size} instances hold seats of ${played.licenseId}, by its history ${held.size}`);
  }
  const { seats, maximum } = left;
  if ((seats?.seats_used ?? 0) !== rows.size)
    findings.push(`${seats?.seats_used} seats are counted, ${rows.size} taken`);
  if (seats && seats.seats_max !== maximum) findings.push(`the maximum is ${maximum}, of the seats ${seats.seats_max}`);
  const machines = left.activations.map(({ components }) => components);
  if (new Set(machines).size !== machines.length) findings.push("a machine holds two seats");
  return findings;
}

async function readLeft(stage: Stage, licenseId: string): Promise<Left> {
  return stage.database.asSuperuser(async (client) => {
    const events = await client.query("SELECT version, payload FROM event WHERE stream = $1 ORDER BY id", [
      `seats/${licenseId}`,
    ]);
    // Two of a machine's three parts stay; its fingerprint changes with the third.
    const activations = await client.query(
      `SELECT activation_id, (SELECT string_agg(encode(value_hash, 'hex'), ' ' ORDER BY name) FROM activation_component c
                               WHERE c.activation_id = a.activation_id AND c.name <> 'mac') AS components
         FROM activation a WHERE license_id = $1`,
      [licenseId],
    );
    const seats = await client.query("SELECT seats_max, seats_used FROM license_seats WHERE license_id = $1", [
      licenseId,
    ]);
    const license = await client.query("SELECT seats FROM license WHERE license_id = $1", [licenseId]);
    return {
      events: events.rows,
      activations: activations.rows,
      seats: seats.rows[0],
      maximum: license.rows[0].seats,
    };
  });
}

import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type ActivateInstanceResponse, KeyReason } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { InstanceType } from "@licet/contracts/licet/licensing/v1/seat_pb";
import { ServiceError } from "@licet/platform/errors";
import { between, pick } from "../random.ts";
import { type Clients, type Product, products, type Stage } from "./stage.ts";

/** What happened in rounds, in numbers. */
export type Tally = Record<
  | "calls"
  | "activated"
  | "denied"
  | "deactivated"
  | "heard"
  | "released"
  | "resized"
  | "refused"
  | "repeated"
  | "jumps"
  | "sweeps"
  | "kills",
  number
>;

/** A round that was played: what its callers were told, for the check. */
export interface Played {
  readonly product: Product;
  readonly licenseId: string;
  /** Ids of activations that somebody was granted. */
  readonly granted: ReadonlySet<string>;
  /** What broke a promise already while it was played. */
  readonly findings: readonly string[];
}

interface Round {
  readonly stage: Stage;
  readonly random: () => number;
  readonly tally: Tally;
  readonly product: Product;
  readonly key: string;
  readonly licenseId: string;
  readonly granted: Set<string>;
  readonly findings: string[];
}

/** Machines that fight for the seats of a license. */
const MACHINES = 12;
/** The most seats of a license; many less than machines. */
const MAX_SEATS = 6;
/** What needs seats that are taken begins so many milliseconds later, at the most. */
const LATEST_MS = 60;
/** Attempts of a caller whose connection was cut, or who was told to come again. */
const MAX_ATTEMPTS = 30;

/** Plays one round: a new license, and callers of whom most begin at once. */
export async function playRound(
  stage: Stage,
  random: () => number,
  tally: Tally,
  { customerId, callers, kills }: { customerId: string; callers: number; kills: boolean },
): Promise<Played> {
  const product = pick(random, Object.keys(products) as Product[]);
  const clients = pick(random, stage.clients);
  const { license, keySecret } = await clients.licenses.provisionLicense({
    requestId: randomUUID(),
    customerId,
    product,
    seats: between(random, 1, MAX_SEATS),
    validUntil: timestampFromMs(Date.UTC(2200, 0, 1)),
    key: { case: "issueKey", value: true },
  });
  const licenseId = license?.licenseId ?? "";
  const round: Round = {
    stage,
    random,
    tally,
    product,
    key: keySecret,
    licenseId,
    granted: new Set(),
    findings: [],
  };
  // What each does is drawn before anybody begins, so that a seed says what happens, though not in which order.
  const plans = Array.from({ length: callers }, (_, index) => planOf(round, kills && index === 0));
  await Promise.all(
    plans.map((play) =>
      play().catch((error: unknown) => {
        round.findings.push(`a caller failed: ${error instanceof Error ? error.message : String(error)}`);
      }),
    ),
  );
  const { granted, findings } = round;
  return { product, licenseId, granted, findings };
}

/** What one caller does. */
function planOf(round: Round, kills: boolean): () => Promise<void> {
  const { random, stage } = round;
  const clients = pick(random, stage.clients);
  const machine = between(random, 1, MACHINES);
  const part = between(random, 1, 2);
  const [kind, seats, repeats] = [random(), between(random, 0, MAX_SEATS), random() < 0.2];
  const laterMs = between(random, 1, LATEST_MS);
  const first = () => activate(round, clients, machine, part, repeats);
  const later = (play: () => Promise<void>) => () => delay(laterMs).then(play);
  if (kills) return later(() => kill(round));
  if (kind < 0.45) return first;
  if (kind < 0.58) return () => first().then(() => deactivate(round, clients, machine, part, repeats));
  if (kind < 0.68) return later(() => deactivate(round, clients, machine, part, repeats));
  if (kind < 0.78) return () => first().then(() => heartbeat(round, clients, machine, 3 - part));
  if (kind < 0.86) return later(() => resize(round, clients, seats));
  if (kind < 0.91) return () => first().then(() => release(round, clients));
  if (kind < 0.95) return later(() => sweep(round));
  return later(() => jump(round, between(random, 1, 90)));
}

/** The same machine though one of its three parts differs. */
function instanceOf(machine: number, part: number) {
  const components = { cpu: `cpu-${machine}`, disk: `disk-${machine}`, mac: `mac-${machine}-${part}` };
  return { type: InstanceType.MACHINE_ID, components };
}

async function activate(
  round: Round,
  { activations }: Clients,
  machine: number,
  part: number,
  repeats: boolean,
): Promise<void> {
  const { key, product, tally, granted, findings } = round;
  const request = { requestId: randomUUID(), key, product, instance: instanceOf(machine, part) };
  const ask = () => untilKnown(round, () => activations.activateInstance(request));
  const note = ({ valid, reason, activation }: ActivateInstanceResponse) => {
    if (valid && activation) {
      tally.activated++;
      granted.add(activation.activationId);
    } else if (reason === KeyReason.SEATS_EXHAUSTED) tally.denied++;
    else findings.push(`an activation was answered with reason ${KeyReason[reason]}`);
  };
  const [first, ...more] = await Promise.all(repeats ? [ask(), ask()] : [ask()]);
  for (const answer of [first, ...more]) if (answer) note(answer);
  if (!repeats) return;
  tally.repeated++;
  const last = await ask();
  note(last);
  const ids = [first, ...more, last].flatMap((answer) => answer?.activation?.activationId ?? []);
  if (new Set(ids).size > 1) findings.push(`one request took ${new Set(ids).size} seats`);
  if (first?.valid && first.activation?.activationId !== last.activation?.activationId) {
    findings.push("a repetition was told something else than the first time");
  }
}

async function deactivate(
  round: Round,
  { activations }: Clients,
  machine: number,
  part: number,
  repeats: boolean,
): Promise<void> {
  const { key, product, tally, findings } = round;
  const request = { requestId: randomUUID(), key, product, instance: instanceOf(machine, part) };
  const first = await untilKnown(round, () => activations.deactivateInstance(request));
  if (first.deactivated) tally.deactivated++;
  if (!repeats) return;
  tally.repeated++;
  const { deactivated } = await untilKnown(round, () => activations.deactivateInstance(request));
  if (deactivated !== first.deactivated) findings.push("a repeated deactivation was told something else");
}

async function heartbeat(round: Round, { activations }: Clients, machine: number, part: number): Promise<void> {
  const { key, product, tally } = round;
  const request = { requestId: randomUUID(), key, product, instance: instanceOf(machine, part) };
  const { valid } = await untilKnown(round, () => activations.heartbeat(request));
  if (valid) tally.heard++;
}

async function resize(round: Round, { licenses }: Clients, seats: number): Promise<void> {
  const { licenseId, tally } = round;
  const request = { requestId: randomUUID(), licenseId, updateMask: { paths: ["seats"] }, seats };
  try {
    await untilKnown(round, () => licenses.updateLicense(request));
    tally.resized++;
  } catch (error) {
    if (!(error instanceof ServiceError && error.reason === "SEATS_IN_USE")) throw error;
    tally.refused++;
  }
}

async function release(round: Round, { activations }: Clients): Promise<void> {
  const { licenseId, tally } = round;
  const { activations: held } = await untilKnown(round, () => activations.listActivations({ licenseId, pageSize: 1 }));
  const [first] = held;
  if (!first) return;
  try {
    const request = { requestId: randomUUID(), licenseId, activationId: first.activationId };
    await untilKnown(round, () => activations.releaseActivation(request));
    tally.released++;
  } catch (error) {
    if (!(error instanceof ServiceError && error.reason === "ACTIVATION_NOT_FOUND")) throw error;
  }
}

async function sweep(round: Round): Promise<void> {
  round.tally.sweeps++;
  const [service] = round.stage.services;
  await untilKnown(round, async () => service?.settle());
}

async function jump({ stage, tally }: Round, seconds: number): Promise<void> {
  tally.jumps++;
  stage.clock.now += seconds * 1_000;
}

/** Ends the database sessions of calls that are under way. */
async function kill({ stage, tally }: Round): Promise<void> {
  await stage.database.asSuperuser((client) =>
    client.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND usename = 'licet_app' AND state <> 'idle' LIMIT 3`),
  );
  tally.kills++;
}

/** Asks until there is an answer: who was cut off, or waited too long, doesn't know and asks again by the same request id. */
async function untilKnown<T>({ tally }: Pick<Round, "tally">, ask: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    tally.calls++;
    try {
      return await ask();
    } catch (error) {
      const again =
        error instanceof ServiceError && ["UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED"].includes(error.code);
      if (!again || attempt === MAX_ATTEMPTS) throw error;
    }
    await delay(5 * attempt);
  }
}

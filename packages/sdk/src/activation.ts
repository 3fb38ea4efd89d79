import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { ActivationService, KeyReason as WireReason } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { type License, LicenseStatus as WireStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  type InstanceSchema,
  InstanceType,
  type SeatUsage,
  type Activation as WireSeat,
} from "@licet/contracts/licet/licensing/v1/seat_pb";
import type { Connection } from "./connection.ts";
import { invalidArgument } from "./errors.ts";
import type { LicenseStatus } from "./verdict.ts";

/** Why a key permits a product to run or does not: docs/guides/keys.md and seats.md. `OTHER`: only a newer server knows. */
export type KeyReason = Exclude<keyof typeof WireReason, "UNSPECIFIED"> | "OTHER";

/** By what an installation of a product is known: an id, or of a machine what it consists of. */
export type Instance =
  | { readonly type: "URL" | "HOSTNAME" | "MACHINE_ID" | "DEPLOYMENT"; readonly id: string }
  | { readonly type: "MACHINE_ID"; readonly components: Readonly<Record<string, string>> };

/** An installed product that proves its right by a license key. */
export interface Installation {
  /** The license key, as the customer entered it. */
  readonly key: string;
  /** The code of the product. */
  readonly product: string;
  readonly instance: Instance;
  /** What the instance calls itself, for the customer to know it by. */
  readonly displayName?: string;
  /** The version of the product that it runs. */
  readonly version?: string;
  /** The deployment that it belongs to; not for an instance of type `DEPLOYMENT`, whose id says it. */
  readonly deploymentId?: string;
}

/** A seat that an instance holds. */
export interface Seat {
  /** A UUID. */
  readonly activationId: string;
  /** The instance as the product's rules write it. */
  readonly instanceId: string;
  readonly displayName: string;
  readonly version: string;
  readonly deploymentId: string;
  /** Epoch milliseconds by the server's clock, as all times here. */
  readonly lastSeenAtMs: number;
  /** When it is free again unless the instance is heard before; undefined: never. */
  readonly leaseExpiresAtMs: number | undefined;
}

/** How many seats of a license are taken. */
export interface Seats {
  readonly used: number;
  /** Undefined: unlimited. */
  readonly maximum: number | undefined;
}

/** The license that a key proves. */
export interface KeyLicense {
  readonly id: string;
  readonly product: string;
  /** Undefined for a bare license. */
  readonly plan: string | undefined;
  readonly status: LicenseStatus;
  /** `*` means all of the product. */
  readonly features: readonly string[];
  /** When it ends (excluded); undefined: never. */
  readonly validUntilMs: number | undefined;
}

/** What a key is answered. */
export interface KeyAnswer {
  /** Whether the product may run. */
  readonly permitted: boolean;
  readonly reason: KeyReason;
  /** The reason in a sentence, for the product's user. */
  readonly message: string;
  /** The seat of the instance, where it holds one. */
  readonly seat: Seat | undefined;
  /** When this was answered, by the server's clock. */
  readonly checkedAtMs: number;
}

/** What `checkKey` and `activate` are answered. */
export interface LicenseAnswer extends KeyAnswer {
  /** The license and its seats, where the key proves one. */
  readonly license: KeyLicense | undefined;
  readonly seats: Seats | undefined;
  /** From when on the key itself is refused; undefined: it does not expire by itself. */
  readonly keyExpiresAtMs: number | undefined;
  /** How many days the installation may go on without asking again. */
  readonly offlineDays: number;
}

/** What `activate` is answered. */
export interface ActivateAnswer extends LicenseAnswer {
  /** With `SEATS_EXHAUSTED` who holds the seats: up to 20, the longest silent first. */
  readonly holders: readonly Seat[];
  /** How often the instance should be heard, in milliseconds: a third of its lease, or once a day where it has none. */
  readonly heartbeatMs: number;
}

/** What `heartbeat` is answered. */
export interface HeartbeatAnswer extends KeyAnswer {
  /** As in {@link ActivateAnswer}. */
  readonly heartbeatMs: number;
}

/** What `deactivate` is answered. */
export interface DeactivateAnswer {
  /** Whether a seat was given back. */
  readonly deactivated: boolean;
  /** `PERMITTED` where it was, `NOT_ACTIVATED` where there was none; otherwise what is wrong with the key. */
  readonly reason: KeyReason;
  readonly message: string;
  readonly seats: Seats | undefined;
}

/**
 * What an installed product asks with its license key; no API key is needed. That a key does not permit something is an
 * answer. All reject with a {@link LicetError} when there is no answer, or for a field that can't be right.
 */
export interface Activation {
  /** Whether the key permits the product to run and the instance holds a seat. */
  checkKey(installation: Installation): Promise<LicenseAnswer>;
  /** Takes a seat; the same instance again gets the same one. */
  activate(installation: Installation): Promise<ActivateAnswer>;
  /** Says that the instance is there: its lease begins anew. */
  heartbeat(installation: Installation): Promise<HeartbeatAnswer>;
  /** Gives the seat back. */
  deactivate(installation: Installation): Promise<DeactivateAnswer>;
}

const DAY_MS = 86_400_000;
/** As the methods' own deadlines, in milliseconds. */
const QUICK = { timeoutMs: 2_000 };
const PATIENT = { timeoutMs: 5_000 };

/** Makes the calls by license key over a connection. */
export function activateOver(connection: Connection): Activation {
  const { checkKey, activateInstance, heartbeat, deactivateInstance } = ActivationService.method;
  return {
    async checkKey(installation) {
      const { key, product } = installation;
      const request = { key, product, instance: toInstance(installation) };
      return toLicenseAnswer(await connection.unary(checkKey, request, QUICK));
    },
    async activate(installation) {
      const { displayName = "" } = installation;
      const answer = await connection.unary(activateInstance, { ...told(installation), displayName }, PATIENT);
      return {
        ...toLicenseAnswer(answer),
        holders: answer.holders.map(toSeat),
        heartbeatMs: toHeartbeatMs(answer.heartbeatSeconds),
      };
    },
    async heartbeat(installation) {
      const answer = await connection.unary(heartbeat, told(installation), QUICK);
      return { ...toKeyAnswer(answer), heartbeatMs: toHeartbeatMs(answer.heartbeatSeconds) };
    },
    async deactivate(installation) {
      const { key, product, instance, requestId } = told(installation);
      const answer = await connection.unary(deactivateInstance, { key, product, instance, requestId }, PATIENT);
      const { deactivated, reason, message, seats } = answer;
      return { deactivated, reason: toReason(reason), message, seats: seats && toSeats(seats) };
    },
  };
}

/** What every call tells; the id makes its repetitions safe. */
function told(installation: Installation) {
  const { key, product, version = "", deploymentId = "" } = installation;
  return { requestId: randomUUID(), key, product, instance: toInstance(installation), version, deploymentId };
}

function toInstance({ instance }: Installation): MessageInitShape<typeof InstanceSchema> {
  // JavaScript may leave out what the types want.
  const type = InstanceType[instance?.type] as InstanceType | undefined;
  if (type === undefined || type === InstanceType.UNSPECIFIED) {
    throw invalidArgument("instance.type", "must be URL, HOSTNAME, MACHINE_ID or DEPLOYMENT");
  }
  return "id" in instance ? { type, id: instance.id } : { type, components: { ...instance.components } };
}

interface WireAnswer {
  readonly valid: boolean;
  readonly reason: WireReason;
  readonly message: string;
  readonly activation?: WireSeat | undefined;
  readonly checkedAt?: Timestamp | undefined;
}

interface WireLicenseAnswer extends WireAnswer {
  readonly license?: License | undefined;
  readonly seats?: SeatUsage | undefined;
  readonly keyExpiresAt?: Timestamp | undefined;
  readonly offlineDays: number;
}

function toKeyAnswer({ valid, reason, message, activation, checkedAt }: WireAnswer): KeyAnswer {
  return {
    permitted: valid,
    reason: toReason(reason),
    message,
    seat: activation && toSeat(activation),
    checkedAtMs: toMs(checkedAt) ?? 0,
  };
}

function toLicenseAnswer(answer: WireLicenseAnswer): LicenseAnswer {
  const { license, seats, keyExpiresAt, offlineDays } = answer;
  return {
    ...toKeyAnswer(answer),
    license: license && toLicense(license),
    seats: seats && toSeats(seats),
    keyExpiresAtMs: toMs(keyExpiresAt),
    offlineDays,
  };
}

function toLicense({ licenseId, product, plan, status, features, validUntil }: License): KeyLicense {
  return {
    id: licenseId,
    product,
    plan: plan === "" ? undefined : plan,
    // A status that only a newer server knows must not look as if the license were in force.
    status: wordOf<LicenseStatus, "SUSPENDED">(WireStatus, status, "SUSPENDED"),
    features,
    validUntilMs: toMs(validUntil),
  };
}

function toSeat(seat: WireSeat): Seat {
  const { activationId, instanceId, displayName, version, deploymentId, lastSeenAt, leaseExpiresAt } = seat;
  const leaseExpiresAtMs = toMs(leaseExpiresAt);
  const lastSeenAtMs = toMs(lastSeenAt) ?? 0;
  return { activationId, instanceId, displayName, version, deploymentId, lastSeenAtMs, leaseExpiresAtMs };
}

function toSeats({ used, maximum }: SeatUsage): Seats {
  return { used, maximum };
}

function toReason(reason: WireReason): KeyReason {
  return wordOf<KeyReason, "OTHER">(WireReason, reason, "OTHER");
}

function toHeartbeatMs(seconds: number): number {
  return seconds === 0 ? DAY_MS : 1_000 * seconds;
}

function toMs(time: Timestamp | undefined): number | undefined {
  return time && timestampMs(time);
}

/** The name of an enum's number; `fallback` for none, and for one that only a newer contract has. */
function wordOf<W extends string, F extends W>(type: Readonly<Record<number, string>>, number: number, fallback: F): W {
  const word: string | undefined = type[number];
  // Both are made of the same names.
  return word === undefined || word === "UNSPECIFIED" ? fallback : (word as W);
}

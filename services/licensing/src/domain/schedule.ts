import { type Grant, withoutGrant } from "./grant.ts";
import {
  DAY_MS,
  type License,
  type LicenseStatus,
  type Phase,
  phasesOf,
  type StatusFacts,
  statusAt,
  type Told,
} from "./license.ts";

/** How many days before its end a license's holder is told of it (product.md, A10), the first notice first. */
const NOTICE_DAYS = [30, 14, 7, 1] as const;

/** How long before its end billing is asked to renew a license that renews itself. */
const RENEWAL_LEAD_MS = DAY_MS;

/** Why a license is suspended when the grace ends that billing gave. */
const UNPAID_REASON = "unpaid";

/** What the clock did to a license, by the names of the contract's causes. */
export type ClockCause =
  | "ACTIVATED"
  | "TRIAL_ENDED"
  | "GRACE_STARTED"
  | "GRACE_ENDED"
  | "EXPIRED"
  | "CANCELLED"
  | "EXPIRY_NOTICE"
  | "RENEWAL_DUE"
  | "GRANT_EXPIRED";

/** Something that the clock did and that is to be told. */
export interface Happening {
  cause: ClockCause;
  /** When it took effect. */
  at: Date;
  from: LicenseStatus;
  to: LicenseStatus;
  /** Of EXPIRY_NOTICE: one of {@link NOTICE_DAYS}. */
  noticeDays?: number;
  /** Of GRANT_EXPIRED. */
  feature?: string;
  /** Why, where somebody gave the reason in advance. */
  reason: string;
}

/** One thing told, and the license behind it. */
export interface Step {
  happening: Happening;
  license: License;
}

/**
 * What counts as told of a license that begins now, or whose end has just changed: its status, and the notices whose
 * time has passed. So a trial of 10 days gets those of 7 days and of 1.
 */
export function toldAt(license: StatusFacts, now: Date): Told {
  const noticeDays = passedNotice(license.validUntil, now);
  return { status: statusAt(license, now), ...(noticeDays !== undefined && { noticeDays }), renewal: false };
}

/** A license of which it is known what was told: as it is, where a release before this field wrote its row. */
export function adopted(license: License, now: Date): License & { told: Told } {
  const { told } = license;
  const known = told && phasesOf(license).some(({ status }) => status === told.status);
  return { ...license, told: known ? told : { ...toldAt(license, now), ...told, status: statusAt(license, now) } };
}

/**
 * The first thing up to `now` that the clock did to a license and that nobody was told, or undefined. Told one after
 * the other, they lead to the status of now. A late teller tells every change of status at its own time, but of the
 * notices that it missed only the last one, and none after the end.
 */
export function nextStep(license: License, now: Date): Step | undefined {
  const held = adopted(license, now);
  // Of things at the same time what may end the license comes last: what ended is told nothing more.
  const steps = [noticeStep(held, now), renewalStep(held), grantStep(held), statusStep(held)].filter(
    (step) => step !== undefined && step.happening.at <= now,
  ) as Step[];
  return steps.reduce<Step | undefined>(
    (first, step) => (first && first.happening.at <= step.happening.at ? first : step),
    undefined,
  );
}

/**
 * When there is something to tell next; undefined: never. That is a time up to `now` where something is due already, such
 * as the notice that a suspended license did not get and a resumed one does.
 */
export function nextDueAt(license: License, now: Date): Date | undefined {
  const held = adopted(license, now);
  const end = held.validUntil?.getTime();
  const notices = end === undefined ? [] : NOTICE_DAYS.map((days) => end - days * DAY_MS).filter((at) => at > +now);
  const steps = [noticeStep(held, now), statusStep(held), renewalStep(held), grantStep(held)];
  const times = [...notices, ...steps.flatMap((step) => step?.happening.at ?? [])];
  const first = Math.min(...times.map(Number));
  return Number.isFinite(first) ? new Date(first) : undefined;
}

function passedNotice(validUntil: Date | undefined, now: Date): number | undefined {
  if (!validUntil || now >= validUntil) return undefined;
  return NOTICE_DAYS.findLast((days) => validUntil.getTime() - days * DAY_MS <= now.getTime());
}

function isInForce(status: LicenseStatus): boolean {
  return status === "active" || status === "past_due" || status === "grace";
}

function noticeStep(license: License & { told: Told }, now: Date): Step | undefined {
  const { told, validUntil, cancellation } = license;
  const noticeDays = passedNotice(validUntil, now);
  if (!validUntil || noticeDays === undefined || cancellation || !isInForce(told.status)) return undefined;
  if (told.noticeDays !== undefined && told.noticeDays <= noticeDays) return undefined;
  const at = new Date(validUntil.getTime() - noticeDays * DAY_MS);
  const happening = { cause: "EXPIRY_NOTICE", at, from: told.status, to: told.status, noticeDays, reason: "" } as const;
  return { happening, license: { ...license, told: { ...told, noticeDays } } };
}

function renewalStep(license: License & { told: Told }): Step | undefined {
  const { told, validUntil, validFrom, cancellation, autoRenew } = license;
  if (!autoRenew || !validUntil || cancellation || told.renewal || !isInForce(told.status)) return undefined;
  const at = new Date(Math.max(validUntil.getTime() - RENEWAL_LEAD_MS, validFrom.getTime()));
  const happening = { cause: "RENEWAL_DUE", at, from: told.status, to: told.status, reason: "" } as const;
  return { happening, license: { ...license, told: { ...told, renewal: true } } };
}

/** The end of the grant that ends first. What ended for good keeps the grants that it had then. */
function grantStep(license: License & { told: Told }): Step | undefined {
  const { told, grants } = license;
  if (told.status === "cancelled" || told.status === "revoked") return undefined;
  const ending = grants.filter((grant): grant is Grant & { expiresAt: Date } => grant.expiresAt !== undefined);
  const [first] = ending.sort((one, other) => one.expiresAt.getTime() - other.expiresAt.getTime());
  if (!first) return undefined;
  const { feature, expiresAt: at } = first;
  const happening = { cause: "GRANT_EXPIRED", at, from: told.status, to: told.status, feature, reason: "" } as const;
  return { happening, license: { ...license, grants: withoutGrant(grants, feature) } };
}

function statusStep(license: License & { told: Told }): Step | undefined {
  const { told } = license;
  const phases = phasesOf(license);
  const next = phases[phases.findIndex(({ status }) => status === told.status) + 1];
  if (!next) return undefined;
  const { cancellation } = license;
  const reason = next.status === "cancelled" ? (cancellation?.reason ?? "") : "";
  const happening: Happening = {
    cause: causeOf(license, told.status, next.status),
    at: new Date(next.from),
    from: told.status,
    to: next.status,
    reason: next.status === "suspended" ? UNPAID_REASON : reason,
  };
  return { happening, license: { ...settled(license, next), told: { ...told, status: next.status } } };
}

/** A license behind a change of status: a suspension or cancellation by the clock is a decision from then on. */
function settled(license: License, { status, from }: Phase): License {
  const at = new Date(from);
  if (status === "suspended") {
    const { unpaidGraceUntil: _, ...rest } = license;
    const revision = license.revision + 1n;
    const decided = { decidedStatus: status, statusReason: UNPAID_REASON, suspendedByBilling: true } as const;
    return { ...rest, ...decided, updatedAt: at, revision };
  }
  if (status === "cancelled") {
    const { cancellation, unpaidGraceUntil: _, ...rest } = license;
    const revision = license.revision + 1n;
    const statusReason = cancellation?.reason ?? "";
    const decided = { decidedStatus: status, statusReason, suspendedByBilling: false, endedAt: at } as const;
    return { ...rest, ...decided, updatedAt: at, revision };
  }
  return license;
}

function causeOf(license: License, from: LicenseStatus, to: LicenseStatus): ClockCause {
  if (to === "cancelled") return "CANCELLED";
  if (from === "grace") return "GRACE_ENDED";
  if (from === "pending") return "ACTIVATED";
  if (license.type === "trial") return "TRIAL_ENDED";
  return to === "grace" ? "GRACE_STARTED" : "EXPIRED";
}

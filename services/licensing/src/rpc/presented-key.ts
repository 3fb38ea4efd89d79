import type { DescMessage, Message, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { asSystem } from "@licet/platform/database/database";
import { runOnce } from "@licet/platform/idempotency";
import { networkOf } from "@licet/platform/rpc/address";
import type { Call } from "@licet/platform/rpc/call";
import { rateLimited, tellAllowance } from "@licet/platform/rpc/rate-limit";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { decideKey, type KeyDecision, type KeyFacts } from "../domain/key-decision.ts";
import { keyStatusAt, readLicenseKey } from "../domain/license-key.ts";
import type { Seats } from "../domain/seats.ts";
import type { ProvedKey } from "../known-keys.ts";
import { isSigned } from "../signatures.ts";
import { publishedKeys } from "../signing-keys.ts";
import { findLicenseKey } from "../store/license-keys.ts";
import { type PresentedKey, readPresentedKey } from "../store/presented-keys.ts";
import type { DB } from "../store/schema.ts";

/**
 * Finds out whose license key a public call presents, or why it is none of ours, and whether the call may be made: the first
 * line of every public method that is called by a license key. A key may make so many calls a day; what is no key is counted for the network that it comes
 * from, so that guessing has an end. A call beyond the limit costs neither a query nor a signature, and the answer of
 * every call says how far its limit is used.
 *
 * @param kind - `heartbeat`s are not counted with the calls of a day: how many there must be is the product's own lease
 * @throws ServiceError RESOURCE_EXHAUSTED `RATE_LIMITED`
 */
export async function proveKey(
  ctx: Context,
  call: Call,
  text: string,
  kind: "call" | "heartbeat" = "call",
): Promise<ProvedKey | Extract<KeyFacts, { reading: string }>> {
  const reading = readLicenseKey(text);
  if ("problem" in reading) {
    countAttempt(ctx, call);
    return { reading: reading.problem };
  }
  const take = kind === "call" ? takeCall : takeHeartbeat;
  const hash = ctx.keyHash.hash(reading.key);
  const signed = async () =>
    reading.jws === undefined || isSigned(reading.jws, "licet-key+jwt", await publishedKeys(ctx));
  const remembered = ctx.knownKeys.find(hash);
  if (remembered !== undefined) {
    await take(ctx, call, remembered);
    return (await signed()) ? remembered : { reading: "signature_wrong" };
  }
  const attempt = countAttempt(ctx, call);
  if (!(await signed())) return { reading: "signature_wrong" };
  const hashes = ctx.keyHash.candidates(reading.key);
  const found = await asSystem(ctx.db, (tx) => findLicenseKey(tx, hashes));
  if (!found) return { reading: "unknown" };
  attempt.takeBack();
  ctx.knownKeys.add(hash, found);
  await take(ctx, call, found);
  return found;
}

/** Takes one of the key's calls of today. */
async function takeCall({ publicCalls: { keyCalls } }: Context, call: Call, key: ProvedKey): Promise<void> {
  if (keyCalls === undefined) return;
  const allowance = await keyCalls.take(key);
  tellAllowance(call, allowance);
  if (!allowance.taken) throw rateLimited(`a license key may make ${allowance.limit} calls a day`, allowance);
}

/** Takes one of the key's heartbeats of this minute and replica. */
async function takeHeartbeat(
  { publicCalls: { heartbeats } }: Context,
  call: Call,
  { keyId }: ProvedKey,
): Promise<void> {
  if (heartbeats === undefined) return;
  const allowance = heartbeats.take(keyId);
  tellAllowance(call, allowance);
  if (allowance.taken) return;
  throw rateLimited(`instances of a license key may send ${allowance.limit} heartbeats a minute`, allowance);
}

/** Counts an attempt with what may be no key, before it is looked up; one with a key is taken back. */
function countAttempt({ publicCalls: { attempts } }: Context, call: Call): { takeBack(): void } {
  // A call from inside the process comes from nowhere, and from nobody who guesses.
  if (attempts === undefined || call.transport === "local") return { takeBack: () => undefined };
  const network = networkOf(call.address);
  const allowance = attempts.take(network);
  tellAllowance(call, allowance);
  if (allowance.taken) return { takeBack: () => attempts.giveBack(network) };
  throw rateLimited(`${allowance.limit} calls a minute with keys that are none may come from one address`, allowance);
}

/** What a key says to a product, and what of ours that is about. */
export interface KeyAnswer extends Pick<PresentedKey, "product" | "license"> {
  readonly decision: KeyDecision;
  /** Absent: the key proves no license of the product, or is not in force. */
  readonly seats?: Seats;
}

/** Decides about a key of the transaction's tenant. */
export async function answerKey(
  tx: Transaction<DB>,
  { tenantId, keyId }: ProvedKey,
  code: string,
  now: Date,
): Promise<KeyAnswer> {
  const { key, product, license: found, seatsUsed } = await readPresentedKey(tx, tenantId, keyId, code);
  // A key that is not in force says nothing of the license: it may have been revoked because it is in the wrong hands.
  const license = keyStatusAt(key, now) === "active" ? found : undefined;
  const known = { ...(product && { product }), ...(license && { license }) };
  const decision = decideKey({ key, ...known }, code, now);
  if (!license) return { decision, ...known };
  const maximum = license.seats === undefined ? {} : { maximum: license.seats };
  return { decision, ...known, seats: { used: seatsUsed, ...maximum } };
}

/** An answer that is to leave nothing behind: thrown, it rolls back its transaction. */
class WithoutEffect<O extends DescMessage> extends Error {
  override readonly name = "WithoutEffect";
  readonly answer: MessageInitShape<O>;

  constructor(answer: MessageInitShape<O>) {
    super("the answer is to have no effect");
    this.answer = answer;
  }
}

/** What a mutation by a key comes to: an answer that is kept for repetitions, or one that has no effect and is not. */
export type Outcome<O extends DescMessage> =
  | { readonly done: MessageInitShape<O> }
  | { readonly denied: MessageInitShape<O> };

/**
 * Carries out a mutation by a license key once for its `request_id`, in one transaction of the key's tenant. Request ids
 * belong to their key: what two customers call alike has nothing to do with each other. An answer without effect is not
 * kept, so that what was denied may be asked again.
 */
export async function onceByKey<O extends DescMessage>(
  ctx: Context,
  call: Pick<Call, "service" | "method" | "signal">,
  { tenantId, keyId }: ProvedKey,
  request: Message & { readonly requestId: string },
  reply: O,
  work: (tx: Transaction<DB>) => Promise<Outcome<O>>,
): Promise<MessageShape<O>> {
  const { service, method, signal } = call;
  try {
    const message = await runOnce(
      ctx.db,
      { tenant: tenantId, service, method, signal },
      { ...request, requestId: `${keyId}/${request.requestId}` },
      reply,
      async (tx) => {
        const outcome = await work(tx);
        if ("denied" in outcome) throw new WithoutEffect<O>(outcome.denied);
        return outcome.done;
      },
    );
    ctx.wakeRelay();
    return message;
  } catch (error) {
    if (error instanceof WithoutEffect) return create(reply, (error as WithoutEffect<O>).answer);
    throw error;
  }
}

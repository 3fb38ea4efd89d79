import { asSystem } from "@licet/platform/database/database";
import { networkOf } from "@licet/platform/rpc/address";
import type { Call } from "@licet/platform/rpc/call";
import { rateLimited, tellAllowance } from "@licet/platform/rpc/rate-limit";
import type { Context } from "../context.ts";
import type { KeyFacts } from "../domain/key-decision.ts";
import { readLicenseKey } from "../domain/license-key.ts";
import type { ProvedKey } from "../known-keys.ts";
import { isSigned } from "../signatures.ts";
import { publishedKeys } from "../signing-keys.ts";
import { findLicenseKey } from "../store/license-keys.ts";

/**
 * Finds out whose license key a public call presents, or why it is none of ours, and whether the call may be made: the first
 * line of every public method that is called by a license key. A key may make so many calls a day; what is no key is counted for the network that it comes
 * from, so that guessing has an end. A call beyond the limit costs neither a query nor a signature, and the answer of
 * every call says how far its limit is used.
 *
 * @throws ServiceError RESOURCE_EXHAUSTED `RATE_LIMITED`
 */
export async function proveKey(
  ctx: Context,
  call: Call,
  text: string,
): Promise<ProvedKey | Extract<KeyFacts, { reading: string }>> {
  const reading = readLicenseKey(text);
  if ("problem" in reading) {
    countAttempt(ctx, call);
    return { reading: reading.problem };
  }
  const hash = ctx.keyHash.hash(reading.key);
  const signed = async () =>
    reading.jws === undefined || isSigned(reading.jws, "licet-key+jwt", await publishedKeys(ctx));
  const remembered = ctx.knownKeys.find(hash);
  if (remembered !== undefined) {
    await takeCall(ctx, call, remembered);
    return (await signed()) ? remembered : { reading: "signature_wrong" };
  }
  const attempt = countAttempt(ctx, call);
  if (!(await signed())) return { reading: "signature_wrong" };
  const hashes = ctx.keyHash.candidates(reading.key);
  const found = await asSystem(ctx.db, (tx) => findLicenseKey(tx, hashes));
  if (!found) return { reading: "unknown" };
  attempt.takeBack();
  ctx.knownKeys.add(hash, found);
  await takeCall(ctx, call, found);
  return found;
}

/** Takes one of the key's calls of today. */
async function takeCall({ publicCalls: { keyCalls } }: Context, call: Call, key: ProvedKey): Promise<void> {
  if (keyCalls === undefined) return;
  const allowance = await keyCalls.take(key);
  tellAllowance(call, allowance);
  if (!allowance.taken) throw rateLimited(`a license key may make ${allowance.limit} calls a day`, allowance);
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

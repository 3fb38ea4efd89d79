/** Subscribes to license events over gRPC. docs/guides/license-events.md explains it. */
import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  LicensingService,
  type SubscribeLicenseEventsResponse,
  SubscriptionStart,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { openJournal, setting, tell } from "./journal.ts";

/** How long, in milliseconds, a living subscription says nothing at the most: heartbeats come every 3 seconds. */
const SILENCE_MS = 15_000;
/** Pauses before the next attempt, in milliseconds: a random part of what doubles from the first to the last. */
const FIRST_PAUSE_MS = 100;
const LAST_PAUSE_MS = 10_000;
/** Answers that the next attempt would get too. */
const FINAL: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.Unauthenticated,
  Code.PermissionDenied,
  Code.Unimplemented,
]);

const journal = openJournal(setting("JOURNAL"));
const apiKey = setting("LICET_API_KEY");
const client = createClient(
  LicensingService,
  // Cleartext, as inside a mesh without TLS.
  createGrpcTransport({ baseUrl: `http://${setting("LICET_ADDRESS")}`, pingIntervalMs: 30_000 }),
);
const stopping = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stopping.abort());

let pauseMs = FIRST_PAUSE_MS;
while (!stopping.signal.aborted) {
  try {
    await subscribe();
  } catch (error) {
    if (stopping.signal.aborted) break;
    // What is no error of the stream is one of the journal.
    if (!(error instanceof ConnectError) || FINAL.has(error.code)) {
      tell("the consumer ends", { error: String(error) });
      process.exit(1);
    }
    tell("the subscription ended and is resumed", { error: String(error) });
  }
  await delay(Math.random() * pauseMs, undefined, { signal: stopping.signal }).catch(() => undefined);
  pauseMs = Math.min(2 * pauseMs, LAST_PAUSE_MS);
}
journal.close();
process.exit(0);

/** Takes messages until the stream ends, which it always does with an error. */
async function subscribe(): Promise<void> {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), SILENCE_MS);
  const request = {
    resumeToken: journal.token(),
    // Counts at the first time only, when there is no token.
    start: SubscriptionStart.EARLIEST,
  };
  const signal = AbortSignal.any([stopping.signal, silent.signal]);
  try {
    for await (const message of client.subscribeLicenseEvents(request, { signal, headers: { "x-api-key": apiKey } })) {
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE_MS);
      pauseMs = FIRST_PAUSE_MS;
      take(message);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Makes the effect of a message and its token durable in one step. */
function take({ resumeToken, content }: SubscribeLicenseEventsResponse): void {
  if (content.case !== "event") {
    // A heartbeat: only the place moves on, past what is not for this subscription.
    if (resumeToken !== journal.token()) journal.append({ resumeToken });
    return;
  }
  const { eventId, type, change } = content.value;
  if (change === undefined) throw new Error(`event ${eventId} has no change`);
  const { tenantId, customerId, licenseId } = change;
  journal.append({ eventId, type, tenantId, customerId, version: Number(change.version), licenseId, resumeToken });
}

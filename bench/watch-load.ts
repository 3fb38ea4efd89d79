/** SDKs in local mode, and the revocations that they are to see; `watch.ts` starts it. */
import { setTimeout as delay } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { newId } from "@licet/platform/ids";
import { createChannel } from "@licet/platform/rpc/client";
import { until } from "@licet/platform/testing/until";
import { createLicet, type LocalLicet } from "@licet/sdk";
import { serveParent } from "./child.ts";

/** A customer and the only license that allows the feature. */
export interface Held {
  readonly customerId: string;
  readonly licenseId: string;
}

/** What the generator is asked to do. */
export interface WatchRequest {
  /** `host:port` of the two services. */
  readonly licensing: string;
  readonly validation: string;
  readonly credential: string;
  readonly sdks: number;
  readonly held: readonly Held[];
  readonly feature: string;
  /** From one revocation to the next, in milliseconds. */
  readonly everyMs: number;
}

/** What it saw. */
export interface WatchReport {
  /** From the acknowledgement of each revocation to the denial of each SDK that came to deny, in milliseconds. */
  readonly sightings: readonly number[];
  /** How long each plain call took, in milliseconds. */
  readonly calls: readonly number[];
  /** Connections of this process while it measured. */
  readonly connections: number;
}

/** After so long, in milliseconds, a revocation counts as lost on an SDK: more is not promised even in a partition. */
const GIVE_UP_MS = 30_000;
const READY_WITHIN_MS = 60_000;
/** A plain call is to tell how long it takes, and not to give up. */
const CALL_TIMEOUT_MS = 10_000;

async function generate(request: WatchRequest): Promise<WatchReport> {
  const { credential, held, feature } = request;
  const sdks = await startSdks(request);
  const licenses = createClient(LicensingService, createChannel({ address: request.licensing, credential }));
  const validation = createClient(ValidationService, createChannel({ address: request.validation, credential }));
  const sightings = createSightings(sdks, feature);
  const calls: number[] = [];
  const begunAt = performance.now();
  for (const [index, { customerId, licenseId }] of held.entries()) {
    await delay(Math.max(0, begunAt + index * request.everyMs - performance.now()));
    const askedAt = performance.now();
    await validation.validateFeature({ customerId, feature }, { timeoutMs: CALL_TIMEOUT_MS });
    calls.push(performance.now() - askedAt);
    const wanted = { requestId: newId(), licenseId, reason: "bench" };
    if (index % 2 === 0) await licenses.revokeLicense(wanted);
    else await licenses.suspendLicense(wanted);
    sightings.expect(customerId);
  }
  await sightings.settled();
  const connections = process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
  return { sightings: sightings.delays, calls, connections };
}

/** Clients that allow all customers already, each on a connection of its own. */
async function startSdks({ validation, credential, sdks, held, feature }: WatchRequest): Promise<LocalLicet[]> {
  const clients = Array.from({ length: sdks }, (_, index) =>
    // grpc-js shares the connection of targets that are spelt alike. The authority is a name server, which an address
    // does not need.
    createLicet({ mode: "local", address: `dns://127.0.0.${index + 1}/${validation}`, apiKey: credential }),
  );
  await Promise.all(clients.map((client) => client.ready()));
  const allow = () => clients.every((client) => held.every((one) => client.check(one.customerId, feature).allowed));
  await until("all SDKs allow all customers", allow, { timeoutMs: READY_WITHIN_MS });
  return clients;
}

/** A revocation that was acknowledged, and those who have not denied since. */
interface Open {
  readonly customerId: string;
  readonly acknowledgedAt: number;
  waiting: LocalLicet[];
}

/** Asks the SDKs about whom was revoked in each turn of the event loop: facts change between turns only. */
function createSightings(sdks: readonly LocalLicet[], feature: string) {
  const delays: number[] = [];
  const open = new Set<Open>();
  const look = (): void => {
    for (const one of open) {
      const elapsedMs = performance.now() - one.acknowledgedAt;
      const blind = one.waiting.filter((sdk) => sdk.check(one.customerId, feature).allowed);
      for (let seen = blind.length; seen < one.waiting.length; seen++) delays.push(elapsedMs);
      one.waiting = blind;
      if (blind.length === 0 || elapsedMs > GIVE_UP_MS) open.delete(one);
    }
    if (open.size > 0) setImmediate(look);
  };
  return {
    delays,
    /** The customer's license was revoked now. */
    expect(customerId: string): void {
      open.add({ customerId, acknowledgedAt: performance.now(), waiting: [...sdks] });
      if (open.size === 1) setImmediate(look);
    },
    /** Resolves once everything was seen or given up. */
    settled: () => until("all denials are seen", () => open.size === 0, { timeoutMs: 2 * GIVE_UP_MS }),
  };
}

serveParent((request) => generate(request as WatchRequest));

import { type Client, createClient, type Transport } from "@connectrpc/connect";
import type { CredentialChanged } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import type { Logger } from "@licet/platform/logging";

/** Between two looks for what is to be reported, in milliseconds. */
const TICK_MS = 5_000;
/** One key is reported at most once in so many milliseconds. */
const PER_KEY_MS = 60_000;
/** Keys in one report; the contract takes no more. */
const BATCH = 500;
/** Reports of one look; the rest waits for the next one. */
const MAX_BATCHES = 20;
/** Keys whose use is kept; beyond it the one used first goes, and its use is not told. */
const MAX_KEYS = 100_000;
/** How long licensing may take to answer, in milliseconds. */
const TIMEOUT_MS = 1_000;
/** The longest age that the contract takes, in milliseconds. */
const MAX_AGE_MS = 86_400_000;

/** Notes in memory when API keys were used, and tells licensing now and then. */
export interface KeyUse {
  /** Notes that a call was let in by a key, of which this process knows the version. */
  note(keyId: string, version: bigint): void;
  /** Begins to report. */
  start(): void;
  /** Reports what is due, as the clock would have it done. */
  report(): Promise<void>;
  /** Reports the rest, in about a second or not at all. */
  stop(): Promise<void>;
}

/** What {@link createKeyUse} needs. */
export interface KeyUseOptions {
  /** Reaches TenantService with the mesh's key. */
  readonly licensing: Transport;
  /** Takes over what licensing tells of keys that have changed without this process hearing of it. */
  readonly apply: (changed: CredentialChanged) => void;
  readonly logger: Logger;
  /** A clock that nobody sets, in milliseconds. */
  readonly steadyMs?: () => number;
}

/** Before all times. */
const NEVER = Number.NEGATIVE_INFINITY;

interface Use {
  usedAtMs: number;
  version: bigint;
  /** The use that licensing was told last, and when it was. */
  toldUseMs: number;
  toldAtMs: number;
}

/**
 * Creates the notes of a process. No call waits for them and none causes a write: a key is reported at most once a
 * minute, however much it is used, and first within seconds. A process that is killed takes with it what it noted since
 * its last report. A report that fails is repeated.
 */
export function createKeyUse(options: KeyUseOptions): KeyUse {
  const { licensing, apply, logger, steadyMs = () => performance.now() } = options;
  const tenants = createClient(TenantService, licensing);
  const uses = new Map<string, Use>();
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();
  let failing = false;

  /** Reports keys that are due, or with `all` every use that was not told. */
  const report = async (all: boolean): Promise<void> => {
    const due = takeDue(uses, steadyMs(), all);
    try {
      for (let batch = 0; batch < MAX_BATCHES && batch * BATCH < due.length; batch++) {
        await send(tenants, due.slice(batch * BATCH, (batch + 1) * BATCH), steadyMs, apply);
      }
      failing = false;
    } catch (error) {
      if (!failing) logger.warn({ err: error }, "the use of API keys can't be reported; it is kept and tried again");
      failing = true;
    }
  };
  // One after the other: two at once would tell the same.
  const next = (all: boolean): Promise<void> => {
    running = running.then(() => report(all));
    return running;
  };

  return {
    note(keyId, version) {
      const use = uses.get(keyId) ?? { usedAtMs: 0, version, toldUseMs: NEVER, toldAtMs: NEVER };
      use.usedAtMs = steadyMs();
      use.version = version;
      uses.set(keyId, use);
      if (uses.size > MAX_KEYS) dropFirst(uses);
    },
    start() {
      timer = setInterval(() => void next(false), TICK_MS);
      timer.unref();
    },
    report: () => next(false),
    async stop() {
      clearInterval(timer);
      await next(true);
    },
  };
}

/** The keys whose use is to be told now; forgets those that have been told and were not used for a while. */
function takeDue(uses: Map<string, Use>, nowMs: number, all: boolean): [string, Use][] {
  const due: [string, Use][] = [];
  for (const [keyId, use] of uses) {
    const rested = nowMs - use.toldAtMs >= PER_KEY_MS;
    if (use.usedAtMs > use.toldUseMs) {
      if (rested || all) due.push([keyId, use]);
    } else if (rested) uses.delete(keyId);
  }
  return due;
}

async function send(
  tenants: Client<typeof TenantService>,
  batch: readonly [string, Use][],
  steadyMs: () => number,
  apply: (changed: CredentialChanged) => void,
): Promise<void> {
  const nowMs = steadyMs();
  // A use during the call is told by the next report.
  const told = batch.map(([keyId, use]) => ({ keyId, use, usedAtMs: use.usedAtMs }));
  const { changed } = await tenants.reportApiKeyUse(
    {
      uses: told.map(({ keyId, use, usedAtMs }) => ({
        keyId,
        version: use.version,
        usedAgoMs: BigInt(Math.round(Math.min(Math.max(nowMs - usedAtMs, 0), MAX_AGE_MS))),
      })),
    },
    { timeoutMs: TIMEOUT_MS },
  );
  for (const { use, usedAtMs } of told) {
    use.toldUseMs = usedAtMs;
    use.toldAtMs = nowMs;
  }
  for (const credential of changed) apply(credential);
}

function dropFirst(uses: Map<string, Use>): void {
  const [first] = uses.keys();
  if (first !== undefined) uses.delete(first);
}

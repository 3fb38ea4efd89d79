/** Plays the table of the service in docs/guides/failure-modes.md, row by row, with real parts taken away. */
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { Enforcement, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import {
  DecisionReason,
  type ValidateFeatureResponse,
  type ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { ServiceError } from "@licet/platform/errors";
import { newId } from "@licet/platform/ids";
import { tableOf } from "@licet/platform/testing/guide";
import { describeOwnKafka } from "@licet/platform/testing/kafka";
import { describeRedis } from "@licet/platform/testing/redis";
import { until } from "@licet/platform/testing/until";
import { defaults } from "@licet/validation/config";
import { type Part, type Parts, startParts } from "./parts.ts";

/** A second of the table: the fence, the grace and the outages are all as much shorter here. */
const SECOND_MS = 150;
const FENCE_MS = (defaults.fenceMs * SECOND_MS) / 1_000;
const GRACE_SECONDS = 60;
const GRACE_MS = GRACE_SECONDS * SECOND_MS;
/** How long an answer of licensing may take on a busy machine, and how long one of validation that waits for it. */
const PATIENT_MS = 2_000;
const PATIENT = { timeoutMs: 10_000 };
/** Heartbeats come each second. */
const YOUNG_MS = 1_500n;
const OUTAGE = { timeoutMs: 60_000 };
/** How often an outage is tried that the machine was too slow to look at in time, and a call that it was too slow for. */
const TRIES = 5;
const RECOVERY = { timeoutMs: 60_000 };
const PRODUCT = "trading";
const KNOWN = "known";

/** The columns behind `what is gone` and `for how long`. */
interface Told {
  readonly closed: string;
  readonly graced: string;
  readonly elsewhere: string;
  readonly written: string;
  readonly usage: string;
}

interface Row {
  readonly gone: string;
  readonly passMs: number;
  readonly told: Told;
}

const rows = tableOf("failure-modes.md", "## The service").map((cells): Row => {
  const [gone = "", seconds = "", closed = "", graced = "", elsewhere = "", written = "", usage = ""] = cells;
  const passMs = SECOND_MS * (Number.parseInt(seconds, 10) || 0);
  return { gone, passMs, told: { closed, graced, elsewhere, written, usage } };
});
/** The rows of one outage are looks at it, the later the further down. */
const outages = Map.groupBy(rows, ({ gone }) => gone);

let parts: Parts;
let validation: Client<typeof ValidationService>;
/** An instance with room for one customer, so that the others are in neither memory nor Redis as long as nobody asks. */
let narrow: Client<typeof ValidationService>;
let unasked: string[];

async function provision(customerId: string, features: string[]) {
  const validUntil = timestampFromDate(new Date(Date.now() + 86_400_000));
  // By a limit that counts, the answers tell how old counts of usage are.
  const window = LimitWindow.PER_MONTH;
  const limits = [{ metric: "orders", window, enforcement: Enforcement.HARD, maximum: 1_000n }];
  const wanted = { requestId: newId(), customerId, product: PRODUCT, seats: 1, features, limits, validUntil };
  return createClient(LicensingService, parts.admin).provisionLicense(wanted);
}

async function furnish(): Promise<void> {
  const catalog = createClient(CatalogService, parts.admin);
  await catalog.createProduct({ requestId: newId(), product: PRODUCT, name: "Trading" });
  const failModes = {
    closed: { mode: { case: "closed", value: true } },
    graced: { mode: { case: "graceSeconds", value: GRACE_MS / 1_000 } },
  } as const;
  for (const [feature, failMode] of Object.entries(failModes)) {
    await catalog.createFeature({ requestId: newId(), product: PRODUCT, feature, name: feature, failMode });
  }
  const customers = createClient(CustomerService, parts.admin);
  unasked = Array.from({ length: rows.length * TRIES }, (_, index) => `unasked-${index}`);
  for (const customerId of [KNOWN, ...unasked]) {
    await customers.createCustomer({ requestId: newId(), customerId, name: customerId });
    await provision(customerId, ["closed", "graced"]);
  }
}

/** What is taken away, in the words of the table. */
function partsOf(gone: string): Part[] {
  const { licensing, wayToLicensing, metering, postgres, kafka, redis } = parts;
  switch (gone) {
    case "nothing":
      return [];
    case "usage metering":
      return [metering];
    case "Redis":
      return [redis];
    case "the way to licensing":
      return [wayToLicensing];
    case "licensing":
      return [licensing];
    case "Kafka":
      return [kafka];
    case "Postgres":
      return [postgres];
    case "everything":
      // Services first: they end in order only while what they lean on is there.
      return [licensing, metering, redis, kafka, postgres];
    default:
      throw new Error(`nothing is called ${JSON.stringify(gone)} here`);
  }
}

/** An answer in words of the table. */
async function inWords(asked: Promise<ValidateFeatureResponse>): Promise<string> {
  try {
    const { reason, degraded } = await asked;
    return DecisionReason[reason] + (degraded && reason === DecisionReason.ALLOWED ? ", degraded" : "");
  } catch (error) {
    if (error instanceof ServiceError) return `error ${error.code}`;
    throw error;
  }
}

/** As {@link inWords}, again where an answer is wanted and the machine was too slow for one. */
async function wantedInWords(wanted: string, ask: () => Promise<ValidateFeatureResponse>): Promise<string> {
  let told = await inWords(ask());
  for (let tries = 1; tries < TRIES && told !== wanted && told.startsWith("error"); tries++)
    told = await inWords(ask());
  return told;
}

/** What was asked was answered so late that the next row may have begun: says nothing about Licet. */
class TooSlow extends Error {}

/** Until when what a row says holds, after the outage began. */
function endOf(passMs: number): number {
  const ends = [FENCE_MS, FENCE_MS + GRACE_MS].find((endMs) => passMs < endMs);
  return ends === undefined ? Number.POSITIVE_INFINITY : ends - Number(YOUNG_MS);
}

/** A version that memory has not got: of a write where licensing can take one, else of one that it took just before. */
async function unseenVersion(gone: string): Promise<bigint> {
  if (["the way to licensing", "licensing", "Postgres", "everything"].includes(gone)) return 1_000_000n;
  const { consistencyToken } = await provision(KNOWN, ["closed"]);
  return consistencyToken?.version ?? 0n;
}

/** @param takenAt when the first part was taken, @param goneAt when the last one was gone; times of performance.now(). */
async function look({ gone, passMs, told }: Row, takenAt: number, goneAt: number): Promise<Told> {
  const ask = (feature: string) => validation.validateFeature({ customerId: KNOWN, feature }, PATIENT);
  const [closed, graced] = await Promise.all([inWords(ask("closed")), inWords(ask("graced"))]);
  const answeredAt = performance.now();
  if (gone !== "nothing" && answeredAt - takenAt > endOf(passMs)) throw new TooSlow();
  const { usageStalenessMs } = await ask("graced");
  // Heartbeats of usage come each second, on a busy machine later: old is what has had none since the outage began.
  const usage = Number(usageStalenessMs) >= Math.max(FENCE_MS, answeredAt - goneAt) ? "old" : "young";
  const customerId = unasked.pop() ?? "";
  const elsewhere = await wantedInWords(told.elsewhere, () =>
    narrow.validateFeature({ customerId, feature: "closed" }, PATIENT),
  );
  const atLeast = { customerId: KNOWN, version: await unseenVersion(gone) };
  const written = await wantedInWords(told.written, () =>
    validation.validateFeature({ customerId: KNOWN, feature: "closed", atLeast }, PATIENT),
  );
  return { closed, graced, elsewhere, written, usage };
}

/** All is there, and what both instances know is young. */
async function allIsWell(): Promise<boolean> {
  const both = [validation, narrow].map((client) =>
    client.validateFeature({ customerId: KNOWN, feature: "graced" }, PATIENT),
  );
  const answers = await Promise.all(both).catch(() => []);
  if (answers.length === 0) return false;
  return answers.every(
    ({ stalenessMs, usageStalenessMs = YOUNG_MS }) => stalenessMs < YOUNG_MS && usageStalenessMs < YOUNG_MS,
  );
}

/** Takes it away and looks as the rows say; undefined where the machine was too slow for a look at once. */
async function play(gone: string, wanted: readonly Row[]): Promise<Row[] | undefined> {
  await until("all is well", allIsWell, RECOVERY);
  const taken = partsOf(gone);
  const takenAt = performance.now();
  for (const part of taken) await part.take();
  const goneAt = performance.now();
  // Side by side, as some answers of one look take longer than the next one can wait.
  const looks = wanted.map(async (row): Promise<Row> => {
    await until("the time has passed", () => performance.now() - goneAt >= row.passMs, OUTAGE);
    return { ...row, told: await look(row, takenAt, goneAt) };
  });
  try {
    return await Promise.all(looks);
  } catch (error) {
    await Promise.allSettled(looks);
    if (error instanceof TooSlow) return undefined;
    throw error;
  } finally {
    for (const part of taken.reverse()) await part.giveBack();
  }
}

describeOwnKafka("the table of docs/guides/failure-modes.md: validation", () => {
  describeRedis("without", "own", () => {
    beforeAll(async () => {
      parts = await startParts();
      await furnish();
      const shorter = {
        fenceMs: FENCE_MS,
        // Longer, as they are no subject of the table: how long is waited for those who answer on a busy machine.
        staleLookUpTimeoutMs: PATIENT_MS,
      };
      validation = await parts.startValidation(shorter);
      narrow = await parts.startValidation({ ...shorter, maxCustomers: 1 });
    });
    afterAll(() => parts.stop());

    test("has the rows that are played here", () => {
      expect(rows).toHaveLength(17);
    });

    test.each([...outages.keys()])(
      "%s",
      async (gone) => {
        const wanted = outages.get(gone) ?? [];
        let seen = await play(gone, wanted);
        for (let tries = 1; seen === undefined && tries < TRIES; tries++) seen = await play(gone, wanted);
        expect(seen).toEqual(wanted);
      },
      600_000,
    );
  });
});

import { setTimeout as delay } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Decision, DecisionReason } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { between, pick, randomFrom } from "../random.ts";
import { type Caller, outcomeOf } from "./caller.ts";
import type { AskEntry, ChangeEntry, Journal } from "./journal.ts";
import { extraFeatures, type FeatureName, features, planFeatures, tenants } from "./model.ts";

/** Customers whose licenses change, in each tenant; each is shared by all workers. */
const CUSTOMERS = 12;
/** How often an unanswered change is asked for in all. */
const MAX_ATTEMPTS = 400;
/** How often a question with a token is asked until it is answered. */
const MAX_QUESTIONS = 3;
/** The pause between two looks at a replica for a revocation, in milliseconds. */
const LOOK_MS = 100;
/** A revocation is looked for as long as the longest bound and a little more, in milliseconds. */
const WATCH_MS = features.lenient.boundMs + 10_000;
/** How often a replica is asked again after its first denial: it must not fall back. */
const LOOKS_BEHIND = 3;
/** Revocations that are looked for at the same time; beyond it one is not. */
const MAX_WATCHED = 24;

const DAY_MS = 86_400_000;

/** What {@link runLicenses} needs. */
export interface LicenseWork {
  readonly callers: ReadonlyMap<string, Caller>;
  readonly journal: Journal;
  readonly seed: number;
  readonly workers: number;
  readonly finishing: AbortSignal;
  readonly over: AbortSignal;
}

interface Asked {
  readonly requestId: string;
  readonly licenseId: string;
  readonly reason: string;
  readonly feature: string;
}

/** How each change of a license is asked for. */
const changes = {
  suspend: (licenses: Caller["licenses"], { feature: _, ...asked }: Asked) => licenses.suspendLicense(asked),
  resume: (licenses: Caller["licenses"], { feature: _, ...asked }: Asked) => licenses.resumeLicense(asked),
  revoke: (licenses: Caller["licenses"], { feature: _, ...asked }: Asked) => licenses.revokeLicense(asked),
  activate: (licenses: Caller["licenses"], asked: Asked) => licenses.activateFeature(asked),
  deactivate: (licenses: Caller["licenses"], asked: Asked) => licenses.deactivateFeature(asked),
};

interface Held {
  readonly tenant: string;
  readonly customer: string;
  /** Each worker has a product of its own, so that nobody else's license decides its questions. */
  readonly product: string;
  readonly license: string;
  version: number;
}

/** Provisions, grants features, suspends, resumes and revokes licenses, and asks about them, until `finishing` aborts. */
export async function runLicenses(work: LicenseWork): Promise<void> {
  await Promise.all(Array.from({ length: work.workers }, (_, number) => new Worker(work, number).run()));
}

class Worker {
  readonly #work: LicenseWork;
  readonly #random: () => number;
  readonly #product: string;
  readonly #name: string;
  readonly #watches = new Set<Promise<void>>();
  #calls = 0;
  /** The last license of each tenant, for the other tenant to ask for. */
  readonly #last = new Map<string, string>();

  constructor(work: LicenseWork, number: number) {
    this.#work = work;
    this.#name = `worker-${number}`;
    this.#product = productOf(number);
    this.#random = randomFrom(work.seed * 1_000 + 500 + number);
  }

  async run(): Promise<void> {
    while (!this.#work.finishing.aborted) {
      await this.#life();
      await delay(between(this.#random, 0, 200));
    }
    await Promise.all(this.#watches);
  }

  /** One license from its provision to its revocation. */
  async #life(): Promise<void> {
    const random = this.#random;
    const tenant = pick(random, tenants);
    const customer = `customer-${between(random, 1, CUSTOMERS)}`;
    const held = await this.#provision(tenant, customer);
    if (held === undefined) return;
    await this.#ask(held, "ALLOW");
    if (random() < 0.5 && !(await this.#grant(held))) return;
    if (random() < 0.4) {
      if (!(await this.#changeLicense("suspend", held))) return;
      await this.#ask(held, "DENY");
      // Some stay so, for ever.
      if (random() < 0.1 || !(await this.#changeLicense("resume", held))) return;
      await this.#ask(held, "ALLOW");
    }
    if (random() < 0.2) await this.#askForForeign(tenant, customer);
    this.#last.set(tenant, held.license);
    if (!(await this.#changeLicense("revoke", held))) return;
    const revokedAt = performance.now();
    if (this.#watches.size < MAX_WATCHED / this.#work.workers) this.#watch(held, revokedAt);
    await this.#ask(held, "DENY");
  }

  async #provision(tenant: string, customer: string): Promise<Held | undefined> {
    const { customers, licenses } = this.#caller(tenant);
    const made = { kind: "create", tenant, customer, license: "", request: `create-${customer}` } as const;
    const created = await this.#change(made, async () => {
      await customers.createCustomer({ requestId: made.request, customerId: customer, name: customer });
      return {};
    });
    if (created === undefined) return undefined;
    const request = this.#request();
    // Every clock of the run has passed it.
    const validFrom = timestampFromMs(Date.now() - DAY_MS);
    const change = { kind: "provision", tenant, customer, license: "", request } as const;
    const provisioned = await this.#change(change, async () => {
      const { license, consistencyToken } = await licenses.provisionLicense({
        requestId: request,
        customerId: customer,
        product: this.#product,
        plan: "basic",
        validFrom,
        metadata: { request },
      });
      return { license: license?.licenseId ?? "", version: Number(consistencyToken?.version ?? 0n) };
    });
    if (provisioned?.license === undefined) return undefined;
    const { license, version = 0 } = provisioned;
    return { tenant, customer, product: this.#product, license, version };
  }

  /** Grants what the plan lacks, all of it at the same time; now and then one grant is taken away again. */
  async #grant(held: Held): Promise<boolean> {
    const granted = await Promise.all(extraFeatures.map((feature) => this.#changeLicense("activate", held, feature)));
    if (granted.includes(false)) return false;
    const feature = pick(this.#random, extraFeatures);
    await this.#ask(held, "ALLOW", feature);
    if (this.#random() < 0.5) return true;
    if (!(await this.#changeLicense("deactivate", held, feature))) return false;
    await this.#ask(held, "DENY", feature);
    return true;
  }

  /** @param feature of an activation or deactivation. */
  async #changeLicense(kind: keyof typeof changes, held: Held, feature = ""): Promise<boolean> {
    const { licenses } = this.#caller(held.tenant);
    const { tenant, customer, license } = held;
    const request = this.#request();
    const asked = { requestId: request, licenseId: license, reason: "chaos", feature };
    const change = { kind, tenant, customer, license, request, ...(feature !== "" && { feature }) };
    const changed = await this.#change(change, async () => {
      const { consistencyToken } = await changes[kind](licenses, asked);
      return { license, version: Number(consistencyToken?.version ?? 0n) };
    });
    held.version = Math.max(held.version, changed?.version ?? 0);
    return changed !== undefined;
  }

  /** Asks for a change until there is an answer, now and then twice at the same time and once more behind it. */
  async #change(
    change: Omit<ChangeEntry, "op" | "call">,
    call: () => Promise<{ license?: string; version?: number }>,
  ): Promise<{ license?: string; version?: number } | undefined> {
    const once = async (): Promise<{ license?: string; version?: number } | "refused" | "unknown"> => {
      const id = `${this.#name}/${this.#calls++}`;
      const { journal } = this.#work;
      await journal.write({ op: "change", call: id, ...change });
      try {
        const reply = await call();
        await journal.write({ op: "end", call: id, outcome: "ok", at: Date.now(), ...reply });
        return reply;
      } catch (error) {
        const { outcome, code } = outcomeOf(error);
        await journal.write({ op: "end", call: id, outcome, code, at: Date.now() });
        return outcome === "fail" ? "refused" : "unknown";
      }
    };
    if (this.#random() < 0.1) await Promise.all([once(), once()]);
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
      const reply = await once();
      if (reply === "refused") return undefined;
      if (reply !== "unknown") return this.#random() < 0.1 && (await once()) === "refused" ? undefined : reply;
      if (this.#work.over.aborted) return undefined;
      await delay(Math.min(1_000, 50 * attempt));
    }
    return undefined;
  }

  /** Asks some replica with the token of the last change. */
  async #ask(
    held: Held,
    expected: "ALLOW" | "DENY",
    feature: FeatureName = pick(this.#random, planFeatures),
  ): Promise<void> {
    const replicas = [...this.#caller(held.tenant).validation.keys()];
    for (let question = 1; question <= MAX_QUESTIONS; question++) {
      const answer = await this.#question(held, feature, pick(this.#random, replicas), expected);
      await this.#work.journal.write(answer);
      if (answer.decision !== undefined) return;
      await delay(100);
    }
  }

  async #question(held: Held, feature: FeatureName, replica: string, expected?: "ALLOW" | "DENY"): Promise<AskEntry> {
    const { tenant, customer, product, license, version } = held;
    const validation = this.#caller(tenant).validation.get(replica);
    if (validation === undefined) throw new Error(`there is no ${replica}`);
    const asked = Date.now();
    const entry = { op: "ask", tenant, customer, about: license, feature, replica, asked } as const;
    const token = expected && { atLeast: { customerId: customer, version: BigInt(version) } };
    const base = { ...entry, atLeast: expected ? version : 0, ...(expected && { expected }) };
    try {
      const answer = await validation.validateFeature({
        customerId: customer,
        feature,
        context: { product },
        ...token,
      });
      return {
        ...base,
        answered: Date.now(),
        decision: Decision[answer.decision],
        reason: DecisionReason[answer.reason],
        license: answer.license?.licenseId ?? "",
        version: Number(answer.version),
      };
    } catch (error) {
      return { ...base, answered: Date.now(), code: outcomeOf(error).code };
    }
  }

  /** Looks at every replica, without a token, until each has denied what was revoked, and a little longer. */
  #watch(held: Held, revokedAt: number): void {
    const looks = [...this.#caller(held.tenant).validation.keys()].flatMap((replica) =>
      planFeatures.map((feature) => this.#look(held, feature, replica, revokedAt)),
    );
    const watch: Promise<void> = Promise.all(looks).then(() => void this.#watches.delete(watch));
    this.#watches.add(watch);
  }

  async #look(held: Held, feature: FeatureName, replica: string, revokedAt: number): Promise<void> {
    let behind = 0;
    while (performance.now() - revokedAt < WATCH_MS && behind < LOOKS_BEHIND && !this.#work.over.aborted) {
      const answer = await this.#question(held, feature, replica);
      if (answer.decision !== undefined) {
        await this.#work.journal.write(answer);
        if (answer.decision !== "ALLOW" || answer.license !== held.license) behind++;
      }
      await delay(LOOK_MS * 3 ** behind);
    }
  }

  /** Asks as the other tenant for what this one has. */
  async #askForForeign(tenant: string, customer: string): Promise<void> {
    const other = tenants.find((one) => one !== tenant) ?? tenants[0];
    const license = this.#last.get(other);
    if (license === undefined) return;
    const { licenses } = this.#caller(tenant);
    const methods = {
      getLicense: () => licenses.getLicense({ licenseId: license }),
      suspendLicense: () => licenses.suspendLicense({ requestId: this.#request(), licenseId: license, reason: "x" }),
      revokeLicense: () => licenses.revokeLicense({ requestId: this.#request(), licenseId: license, reason: "x" }),
      activateFeature: () =>
        licenses.activateFeature({ requestId: this.#request(), licenseId: license, feature: extraFeatures[0] }),
      listLicenses: async () => {
        const holder = { case: "customerId", value: customer } as const;
        const { licenses: own } = await licenses.listLicenses({ holder, pageSize: 500 });
        return own.some(({ licenseId }) => licenseId === license) ? undefined : "NOT_FOUND";
      },
    };
    const method = pick(this.#random, Object.keys(methods) as (keyof typeof methods)[]);
    const code = await methods[method]().then(
      (reply) => (reply === "NOT_FOUND" ? "NOT_FOUND" : `OK ${license}`),
      (error: unknown) => outcomeOf(error).code,
    );
    await this.#work.journal.write({ op: "foreign", method, tenant, code });
  }

  #caller(tenant: string): Caller {
    const caller = this.#work.callers.get(tenant);
    if (caller === undefined) throw new Error(`there is no caller of ${tenant}`);
    return caller;
  }

  #request(): string {
    return `${this.#name}-${this.#calls++}`;
  }
}

/** The product of a worker's licenses. */
export function productOf(worker: number): string {
  return `product-${worker}`;
}

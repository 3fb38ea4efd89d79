import { randomBytes } from "node:crypto";
import { fromJson, type Message, toJson } from "@bufbuild/protobuf";
import { afterAll, beforeAll } from "@jest/globals";
import fc from "fast-check";
import { sql } from "kysely";
import { inTenant } from "./database/database.ts";
import { ServiceError } from "./errors.ts";
import { type IdempotencyTables, runOnce } from "./idempotency.ts";
import { createTestDatabase, type TestDatabase } from "./testing/database.ts";
import { exampleMigrations } from "./testing/example.ts";
import { methods, notes, response } from "./testing/notes-service.ts";
import { simulation } from "./testing/simulation.ts";

const tenant = "one";
const { signal } = new AbortController();
const call = { tenant, service: notes, method: methods.write, signal };

/** What befalls the first attempt of a caller: each then tries again until it knows. */
type Fault = "none" | "refused" | "killed before the commit" | "answer lost";

/** A caller with its key and request. */
interface Caller {
  readonly key: number;
  readonly body: number;
  readonly fault: Fault;
}

/** What a caller knows in the end. */
type Outcome = { readonly reply: string } | "reused";

const anyCaller = fc.record<Caller>({
  key: fc.nat(1),
  body: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(1) }),
  fault: fc.constantFrom("none", "none", "refused", "killed before the commit", "answer lost"),
});

let database: TestDatabase<IdempotencyTables>;
beforeAll(async () => {
  database = await createTestDatabase({ name: "idempotency_simulation", migrations: exampleMigrations });
});
afterAll(() => database.drop());

/** One attempt: writes a note, waits before the commit for its turn, and meets the fault. */
async function attempt(run: string, caller: Caller, fault: Fault, turn: () => Promise<void>): Promise<string> {
  const body = `${run}/${caller.key}/${caller.body}`;
  const request = fromJson(call.method.input, { requestId: `${run}/${caller.key}`, body });
  const reply = await runOnce(
    database.databases,
    call,
    request as Message & { requestId: string },
    response,
    async (tx) => {
      await sql`INSERT INTO note (tenant_id, body) VALUES (${tenant}, ${body})`.execute(tx);
      await turn();
      if (fault === "refused") throw new ServiceError({ code: "NOT_FOUND", reason: "PLANNED", message: "planned" });
      if (fault === "killed before the commit") await sql`SELECT pg_terminate_backend(pg_backend_pid())`.execute(tx);
      return fromJson(response, { text: randomBytes(8).toString("hex") });
    },
  );
  if (fault === "answer lost") throw new Error("the answer was lost");
  return JSON.stringify(toJson(response, reply));
}

async function callUntilKnown(run: string, caller: Caller, turn: () => Promise<void>): Promise<Outcome> {
  for (let tried = 0; tried < 20; tried++) {
    await turn();
    try {
      return { reply: await attempt(run, caller, tried === 0 ? caller.fault : "none", turn) };
    } catch (error) {
      if (error instanceof ServiceError && error.reason === "REQUEST_ID_REUSED") return "reused";
    }
  }
  throw new Error("the caller was never told");
}

async function notesOf(run: string, key: number): Promise<string[]> {
  const { rows } = await inTenant(database.databases, tenant, (tx) =>
    sql<{ body: string }>`SELECT body FROM note WHERE body LIKE ${`${run}/${key}/%`}`.execute(tx),
  );
  return rows.map(({ body }) => body);
}

simulation("a request has one effect and one reply, whoever repeats it and whatever fails", { runs: 20 }, () =>
  fc.asyncProperty(fc.array(anyCaller, { minLength: 2, maxLength: 7 }), fc.scheduler(), async (callers, scheduler) => {
    const run = randomBytes(8).toString("hex");
    const turn = (): Promise<void> => scheduler.schedule(Promise.resolve());
    const outcomes = await scheduler.waitFor(Promise.all(callers.map((caller) => callUntilKnown(run, caller, turn))));
    for (const key of new Set(callers.map((caller) => caller.key))) {
      const written = await notesOf(run, key);
      if (written.length !== 1) throw new Error(`request ${key} had ${written.length} effects`);
      const replies = new Set<string>();
      for (const [index, caller] of callers.entries()) {
        if (caller.key !== key) continue;
        const outcome = outcomes[index];
        const first = written[0] === `${run}/${key}/${caller.body}`;
        if (first !== (outcome !== "reused")) throw new Error(`caller ${index} was told ${JSON.stringify(outcome)}`);
        if (outcome !== undefined && outcome !== "reused") replies.add(outcome.reply);
      }
      if (replies.size !== 1) throw new Error(`request ${key} had ${replies.size} replies`);
    }
  }),
);

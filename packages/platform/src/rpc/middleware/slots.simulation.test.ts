import type { DescMethod } from "@bufbuild/protobuf";
import fc from "fast-check";
import { platformError } from "../../errors.ts";
import { simulation } from "../../testing/simulation.ts";
import { type Exchange, type MethodPolicy, ServerCall } from "../call.ts";
import { deadline } from "./deadline.ts";
import { slots } from "./slots.ts";

/** What must hold: a call from outside has a slot until its handler settles; one from inside once its caller has left. */
interface Model {
  readonly max: number;
  readonly running: { readonly inner: boolean; left: boolean }[];
}

/** The middlewares around handlers that end by hand. */
interface Real {
  readonly enter: (call: ServerCall, handler: () => Promise<void>) => Promise<void>;
  readonly running: { readonly call: ServerCall; readonly handler: PromiseWithResolvers<void> }[];
}

// The middlewares read a call's circumstances and policy, and nothing of its method.
const method = {} as DescMethod;
const policy: MethodPolicy = { scope: undefined, deadlineMs: 0, maxRequestBytes: 1, idempotency: 0 };

const taken = ({ running }: Model): number => running.filter(({ inner, left }) => !inner || left).length;
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

type Command = fc.AsyncCommand<Model, Real>;

const begin = (inner: boolean): Command => ({
  check: () => true,
  async run(model, real) {
    const exchange: Exchange = {
      transport: inner ? "local" : "grpc",
      headers: new Headers(),
      peer: "peer",
      deadlineAt: undefined,
      receive: () => Promise.reject(new Error("no message is read here")),
      send: () => undefined,
    };
    const call = new ServerCall("example.Service/Method", method, policy, exchange);
    const handler = Promise.withResolvers<void>();
    let entered = false;
    const done = real.enter(call, () => {
      entered = true;
      return handler.promise;
    });
    const refusal = done.then(
      () => undefined,
      (error: unknown) => error,
    );
    await settled();
    const admitted = inner || taken(model) < model.max;
    if (entered !== admitted) throw new Error(`${taken(model)} of ${model.max} slots are taken, entered: ${entered}`);
    if (!admitted) {
      const error = await refusal;
      if ((error as { reason?: string }).reason !== "OVERLOADED") throw new Error("refused with another reason");
      return;
    }
    model.running.push({ inner, left: false });
    real.running.push({ call, handler });
  },
  toString: () => (inner ? "begin inside" : "begin"),
});

const leave = (index: number): Command => ({
  check: ({ running }) => running.length > 0,
  async run(model, real) {
    const at = index % model.running.length;
    const [mine, its] = [model.running[at], real.running[at]];
    if (mine !== undefined) mine.left = true;
    its?.call.abort(platformError("CANCELLED", "the caller left"));
    await settled();
  },
  toString: () => `leave ${index}`,
});

const settle = (index: number, fails: boolean): Command => ({
  check: ({ running }) => running.length > 0,
  async run(model, real) {
    const at = index % model.running.length;
    model.running.splice(at, 1);
    const [its] = real.running.splice(at, 1);
    if (fails) its?.handler.reject(new Error("planned"));
    else its?.handler.resolve();
    await settled();
  },
  toString: () => `settle ${index}${fails ? " badly" : ""}`,
});

const anyCommands = fc.commands<Model, Real, false>(
  [
    fc.boolean().map(begin),
    fc.constant(begin(false)),
    fc.nat(9).map(leave),
    fc.tuple(fc.nat(9), fc.boolean()).map(([index, fails]) => settle(index, fails)),
  ],
  { maxCommands: 40 },
);

simulation("slots are held until handlers settle, and never more than there are", { runs: 150 }, () =>
  fc.asyncProperty(fc.integer({ min: 1, max: 4 }), anyCommands, async (max, commands) => {
    const limit = slots(max);
    const inTime = deadline(Date.now);
    const real: Real = { enter: (call, handler) => limit(call, () => inTime(call, handler)), running: [] };
    const model: Model = { max, running: [] };
    await fc.asyncModelRun(() => ({ model, real }), [...commands, ...emptied(), ...filled(max)]);
  }),
);

/** Ends whatever still runs: none of it may keep a slot. */
function* emptied(): Generator<Command> {
  for (let index = 0; index < 40; index++) yield settle(0, false);
}

/** Takes each slot, and one more. */
function filled(max: number): Command[] {
  return Array.from({ length: max + 1 }, () => begin(false));
}

import type { IncomingHttpHeaders } from "node:http2";
import type { DescMessage, DescMethod, Message, MessageInitShape } from "@bufbuild/protobuf";
import type { Credential } from "../credentials.ts";
import type { Logger } from "../logging.ts";
import type { TrustedProxies } from "./address.ts";
import { type Exchange, isPublic, type Middleware, methodName, readPolicy, ServerCall } from "./call.ts";
import type { RequestRules } from "./codec.ts";
import type { AnyHandler, ServiceBinding } from "./handlers.ts";
import { createMessageRules } from "./message-rules.ts";
import { authentication } from "./middleware/authentication.ts";
import { authorization } from "./middleware/authorization.ts";
import { deadline } from "./middleware/deadline.ts";
import { errors } from "./middleware/errors.ts";
import { type Counting, runningHandlers } from "./middleware/handlers-running.ts";
import { type Slots, slots } from "./middleware/slots.ts";
import { telemetry } from "./middleware/telemetry.ts";
import { validation } from "./middleware/validation.ts";
import { createShortcut, type Shortcut } from "./shortcut.ts";

/** How many calls to open services (health, reflection) run at once; they need no credential, so they have slots of their own. */
const MAX_OPEN = 100;

/**
 * Public calls of an area have slots of their own, one for so many of everybody's: nobody proves anything before a slot is
 * taken, so that a flood of them must leave those who can alone.
 */
const CONCURRENT_PER_PUBLIC = 5;

/** What {@link createPipeline} needs. */
export interface PipelineOptions {
  /** Proves who calls by the call's headers; see `credentials.ts`. */
  authenticate(headers: Headers): Promise<Credential>;
  /** Proves who calls where that is known without asking anyone; without it there are no shortcuts. See `credentials.ts`. */
  authenticateNow?(headers: IncomingHttpHeaders): Credential | undefined;
  /**
   * How many unary calls of one area, the services of one proto package, may run at once: a flood of one leaves the others
   * alone. Public methods have a fifth as many beside.
   */
  maxConcurrent: number;
  /** How many streams of one area may be open at once. */
  maxStreams: number;
  /** Whose word about where a call came from is taken; nobody's when absent. */
  trustedProxies?: TrustedProxies | undefined;
  logger: Logger;
  /** The clock, in epoch milliseconds. */
  now?: () => number;
}

/** One method, ready to be called. */
export interface Route extends RequestRules {
  /** The method's full name, `licet.area.v1.Service/Method`. */
  readonly name: string;
  /** Begins a call; the transport reports a lost caller by `call.abort`, and answers when `done` settles. */
  start(exchange: Exchange): RunningCall;
  /** Answers a call where that takes no waiting; undefined: begin it. */
  readonly shortcut: Shortcut | undefined;
}

/** A call under way. */
export interface RunningCall {
  readonly call: ServerCall;
  /** Resolves after the last message was sent; rejects with the ServiceError to answer with, and with nothing else. */
  readonly done: Promise<void>;
}

/** The way of every call, the same for each transport. */
export interface Pipeline {
  /** Prepares all methods of a service. */
  routes(binding: ServiceBinding): Route[];
}

/**
 * Builds the pipeline: telemetry → errors → overload slot → deadline →
 * authentication → authorisation → validation → handler. Open services and
 * methods of the scope `public` skip authentication and authorisation. Create one per process, after telemetry
 * was started, and hand it to every transport, so that the slots are counted
 * together. They are counted for each area by itself.
 */
export function createPipeline(options: PipelineOptions): Pipeline {
  const now = options.now ?? Date.now;
  const rules = createMessageRules();
  const measuring = telemetry();
  const outer = [measuring, errors(options.logger)];
  const inner = validation(rules);
  const guards = [authentication((headers) => options.authenticate(headers)), authorization];
  const running = runningHandlers();
  const limits = new Map<string, readonly [Slots, Middleware, Counting]>();
  const limitsOf = (binding: ServiceBinding, method: DescMethod): readonly [Slots, Middleware, Counting] => {
    const area = binding.service.file.proto.package;
    const unary = isPublic(method) ? "public" : "unary";
    const kind = binding.open ? "open" : method.methodKind === "unary" ? unary : "streaming";
    const max = {
      open: MAX_OPEN,
      unary: options.maxConcurrent,
      public: Math.ceil(options.maxConcurrent / CONCURRENT_PER_PUBLIC),
      streaming: options.maxStreams,
    }[kind];
    const known = limits.get(`${area} ${kind}`);
    if (known !== undefined) return known;
    const steps = [slots(max), deadline(now), running.count({ area, kind }, max)] as const;
    limits.set(`${area} ${kind}`, steps);
    return steps;
  };
  const shortcutOf = (binding: ServiceBinding, method: DescMethod): Shortcut | undefined => {
    const handler = binding.shortcuts?.handlers?.[method.localName];
    const { scope } = readPolicy(method);
    const unguarded = binding.open || isPublic(method);
    if (handler === undefined || scope === undefined || unguarded || method.methodKind !== "unary") return undefined;
    const authenticateNow = options.authenticateNow?.bind(options);
    if (authenticateNow === undefined) return undefined;
    const [{ full }, , { served }] = limitsOf(binding, method);
    const { recorded, answered } = measuring.shortcut(methodName(method));
    const shortcut = createShortcut({ recorded, answered, full, now, authenticateNow, scope, handler });
    return (arrived) => {
      served();
      return shortcut(arrived);
    };
  };

  return {
    routes(binding) {
      return binding.service.methods.map((method) => {
        const unguarded = binding.open || isPublic(method);
        const steps = [...outer, ...limitsOf(binding, method), ...(unguarded ? [] : guards), inner];
        // The first validation of a message type compiles its rules, which takes milliseconds.
        rules.prepare(method.input);
        const route = createRoute(method, compose(steps, lastStep(binding, method)), options.trustedProxies);
        const decoder = binding.shortcuts?.decoders?.[method.localName];
        return { ...route, decoder, shortcut: shortcutOf(binding, method) };
      });
    },
  };
}

type Reply = MessageInitShape<DescMessage>;
type Step = (call: ServerCall) => Promise<void>;

function createRoute(
  method: DescMethod,
  run: Step,
  proxies: TrustedProxies | undefined,
): Pick<Route, "name" | "method" | "maxRequestBytes" | "start"> {
  const name = methodName(method);
  const policy = readPolicy(method);
  return {
    name,
    method,
    maxRequestBytes: policy.maxRequestBytes,
    start(exchange) {
      const call = new ServerCall(name, method, policy, exchange, proxies);
      return { call, done: run(call) };
    },
  };
}

/** Nests the middlewares once, so that a call only pays for running them. */
function compose(middlewares: readonly Middleware[], last: Step): Step {
  return middlewares.reduceRight<Step>((next, middleware) => (call) => middleware(call, () => next(call)), last);
}

/** Calls the handler and sends what it answers. */
function lastStep(binding: ServiceBinding, method: DescMethod): Step {
  const handler: AnyHandler | undefined = binding.implementation[method.localName];
  if (handler === undefined) throw new Error(`${methodName(method)} has no handler`);
  const answer = (call: ServerCall): ReturnType<AnyHandler> => {
    // Whoever left meanwhile costs no more than this.
    call.signal.throwIfAborted();
    return handler(call, call.input as Message);
  };
  if (method.methodKind === "unary" || method.methodKind === "client_streaming") {
    return async (call) => {
      await call.send((await answer(call)) as Reply);
    };
  }
  return async (call) => {
    for await (const reply of answer(call) as AsyncIterable<Reply>) {
      await call.proveAgain?.();
      await call.send(reply);
    }
  };
}

import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "@licet/contracts/grpc/health/v1/health_pb";
import { ServiceError } from "./errors.ts";
import { unlessAborted } from "./rpc/abort.ts";
import { clip } from "./rpc/codec.ts";
import { type Handlers, implement, type ServiceBinding } from "./rpc/handlers.ts";

/** What a process says about its services, by `grpc.health.v1`. */
export interface HealthService {
  /** To be served on every port, beside what it speaks of. */
  readonly binding: ServiceBinding;
  /** Sets what is said about a service by its full name, or about the process by `""`. Watchers hear of it at once. */
  setServing(serviceName: string, serving: boolean): void;
}

interface State {
  readonly statuses: Map<string, ServingStatus>;
  /** Resolves at the next change; replaced by each one. */
  changed: PromiseWithResolvers<void>;
}

/**
 * Creates the health of the given services and of the process (`""`). All are
 * NOT_SERVING until `setServing` says otherwise: a start that hangs must not
 * look healthy.
 */
export function createHealth(bindings: readonly ServiceBinding[]): HealthService {
  const names = ["", ...bindings.map(({ service }) => service.typeName)];
  const state: State = {
    statuses: new Map(names.map((name) => [name, ServingStatus.NOT_SERVING])),
    changed: Promise.withResolvers(),
  };
  return {
    binding: { ...implement(Health, state, handlers), open: true },
    setServing(serviceName, serving) {
      if (!state.statuses.has(serviceName)) throw new Error(`health: ${serviceName} is none of the services`);
      state.statuses.set(serviceName, serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING);
      state.changed.resolve();
      state.changed = Promise.withResolvers();
    },
  };
}

const handlers: Handlers<typeof Health, State> = {
  async check({ statuses }, _call, { service }) {
    const status = statuses.get(service);
    if (status === undefined) {
      // `NOT_FOUND` is what the protocol prescribes; it is no reason of ours, whose list is about Licet's own methods.
      throw new ServiceError({
        code: "NOT_FOUND",
        reason: "NOT_FOUND",
        message: `no service ${clip(service)} is here`,
      });
    }
    return { status };
  },

  async *watch(state, call, { service }) {
    let last: ServingStatus | undefined;
    for (;;) {
      const { changed } = state;
      const status = state.statuses.get(service) ?? ServingStatus.SERVICE_UNKNOWN;
      if (status !== last) yield { status };
      last = status;
      await unlessAborted(call.signal, changed.promise);
    }
  },

  async list({ statuses }) {
    return { statuses: Object.fromEntries([...statuses].map(([name, status]) => [name, { status }])) };
  },
};

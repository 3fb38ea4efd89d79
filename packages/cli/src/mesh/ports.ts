import { findFreePorts } from "@licet/platform/free-ports";
import { checkPorts } from "@licet/standalone/ports";
import { type Plan, type ServiceName, serviceNames } from "./services.ts";

/** The first port of each kind; replicas are numbered through. */
const FIRST = { grpc: 9100, web: 8100, metrics: 9500 };

/**
 * Plans the replicas and their ports, which stay theirs through restarts.
 *
 * @throws Error in one sentence when one of the usual ports is in use.
 */
export async function planReplicas(
  replicas: Readonly<Record<ServiceName, number>>,
  freePorts: boolean,
): Promise<readonly Plan[]> {
  const wanted = serviceNames.flatMap((service) =>
    Array.from({ length: replicas[service] }, (_, index) => ({ service, number: index + 1 })),
  );
  const free = freePorts ? await findFreePorts(3 * wanted.length) : [];
  const plans = wanted.map((replica, index) => ({
    ...replica,
    ports: {
      grpc: free[3 * index] ?? FIRST.grpc + index,
      web: free[3 * index + 1] ?? FIRST.web + index,
      metrics: free[3 * index + 2] ?? FIRST.metrics + index,
    },
  }));
  const flag = "--free-ports";
  const ports = plans.flatMap((plan) => Object.values(plan.ports));
  await checkPorts(
    "127.0.0.1",
    ports.map((port) => ({ flag, port })),
  );
  return plans;
}

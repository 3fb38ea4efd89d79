/** A gateway to exchanges that trades what its customers' licenses allow. docs/guides/gates.md explains it. */
import type { UsageEvent } from "@licet/sdk";
import { type Checker, createGate, verdictOf } from "@licet/sdk/fastify";
import createFastify, { type FastifyInstance, type FastifyRequest } from "fastify";

/** What the gateway needs of Licet: any client of the SDK has it. */
export interface Licet extends Checker {
  track(event: UsageEvent): boolean;
}

/** The exchanges, and the feature that each needs. */
const EXCHANGES: ReadonlyMap<string, string> = new Map(
  ["BINANCE", "COINBASE", "KRAKEN", "EGX", "ADX", "TADAWUL"].map((code) => [code, `exchange_${code.toLowerCase()}`]),
);

interface Order {
  readonly orderId: string;
  readonly exchange: string;
  readonly instrument: string;
}

const orderBody = {
  type: "object",
  required: ["orderId", "exchange", "instrument"],
  properties: {
    orderId: { type: "string", minLength: 1, maxLength: 64 },
    exchange: { enum: [...EXCHANGES.keys()] },
    instrument: { type: "string", minLength: 1, maxLength: 20 },
  },
};

/**
 * Creates the gateway.
 *
 * @param desks the customer of each desk's key; stands for the authentication of a real gateway
 */
export function createGateway(licet: Licet, desks: ReadonlyMap<string, string>): FastifyInstance {
  const app = createFastify();
  const positions = new Map<string, Set<string>>();
  const customerOf = ({ headers }: FastifyRequest): string | undefined => desks.get(String(headers["x-desk-key"]));
  const orderOf = ({ body }: FastifyRequest): Order => body as Order;
  const heldBy = (request: FastifyRequest): Set<string> => positions.get(customerOf(request) ?? "") ?? new Set();

  const { requireFeature } = createGate<FastifyRequest>({ licet, customerId: customerOf });
  // A limit is compared with what will be after the order.
  const context = (request: FastifyRequest) => ({
    crypto_assets: new Set([...heldBy(request), orderOf(request).instrument]).size,
  });
  const exchangeFeature = (request: FastifyRequest): string => EXCHANGES.get(orderOf(request).exchange) ?? "";

  const opening = [requireFeature("basic_trading", { context }), requireFeature(exchangeFeature)];
  app.post("/orders", { schema: { body: orderBody }, preHandler: opening }, async (request, reply) => {
    const { orderId, exchange, instrument } = orderOf(request);
    const customerId = customerOf(request) ?? "";
    positions.set(customerId, heldBy(request).add(instrument));
    // The order's own id: placed again after a lost answer, it counts once.
    const event = {
      id: orderId,
      customerId,
      metric: "orders",
      feature: exchangeFeature(request),
      dimensions: { exchange },
    };
    if (!licet.track(event)) request.log.error({ orderId }, "usage could not be tracked");
    return reply.code(201).send({ orderId, plan: verdictOf(request)?.license?.plan });
  });

  // An expired or suspended license may still get out of what is open.
  const closing = requireFeature("basic_trading", { reduces: () => true });
  app.delete("/positions/:instrument", { preHandler: closing }, async (request, reply) => {
    heldBy(request).delete((request.params as { instrument: string }).instrument);
    return reply.code(204).send();
  });
  return app;
}

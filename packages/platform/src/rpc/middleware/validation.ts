import type { Message } from "@bufbuild/protobuf";
import { unlessAborted } from "../abort.ts";
import type { Middleware, ServerCall } from "../call.ts";
import { isProved } from "../codec.ts";
import type { MessageRules } from "../message-rules.ts";

/**
 * Decodes the request and refuses one that breaks a rule of the contract,
 * naming each field by its proto path. Requests of a stream are checked one by
 * one as the handler takes them.
 */
export function validation(rules: MessageRules): Middleware {
  return async (call, next) => {
    const { methodKind, input } = call.method;
    const check = (request: Message) => {
      if (!isProved(request)) rules.check(input, request);
    };
    if (methodKind === "unary" || methodKind === "server_streaming") {
      const received = call.exchange.receive() as Message | Promise<Message>;
      // Whoever never ends a body does not keep what the call takes up beyond its deadline.
      const request = received instanceof Promise ? await unlessAborted(call.signal, received) : received;
      check(request);
      call.input = request;
    } else {
      call.input = checked(call, check);
    }
    await next();
  };
}

async function* checked(call: ServerCall, check: (request: Message) => void): AsyncGenerator<Message> {
  const requests = (call.exchange.receive() as AsyncIterable<Message>)[Symbol.asyncIterator]();
  for (;;) {
    const next = await unlessAborted(call.signal, requests.next());
    if (next.done) return;
    check(next.value);
    yield next.value;
  }
}

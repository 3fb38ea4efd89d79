import type { Credential } from "../../credentials.ts";
import type { Middleware } from "../call.ts";

/**
 * Finds out who calls; `authenticate` throws a ServiceError with UNAUTHENTICATED when the headers prove nobody. A stream
 * asks again with each message that it sends: it does not outlive the caller's key.
 */
export function authentication(authenticate: (headers: Headers) => Promise<Credential>): Middleware {
  return async (call, next) => {
    const prove = async () => {
      call.credential = await authenticate(call.headers);
    };
    await prove();
    call.proveAgain = prove;
    await next();
  };
}

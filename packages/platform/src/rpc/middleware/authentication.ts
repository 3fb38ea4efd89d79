import type { Credential } from "../../credentials.ts";
import type { Middleware } from "../call.ts";

/** Finds out who calls; `authenticate` throws a ServiceError with UNAUTHENTICATED when the headers prove nobody. */
export function authentication(authenticate: (headers: Headers) => Promise<Credential>): Middleware {
  return async (call, next) => {
    call.credential = await authenticate(call.headers);
    await next();
  };
}

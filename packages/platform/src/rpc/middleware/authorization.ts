import { platformError } from "../../errors.ts";
import type { Middleware } from "../call.ts";

/**
 * Lets a call pass when its credential holds the scope that the method
 * declares. A method that declares none is denied to everyone: forgetting the
 * option must not open a method.
 */
export const authorization: Middleware = async (call, next) => {
  const { scope } = call.policy;
  if (scope === undefined) {
    throw platformError("SCOPE_MISSING", `${call.name} declares no scope, so no credential may call it`);
  }
  if (!call.credential.scopes.has(scope)) {
    throw platformError("SCOPE_MISSING", `${call.name} needs the scope ${scope}, which this credential does not have`, {
      metadata: { required_scope: scope },
    });
  }
  await next();
};

import { platformError } from "@licet/platform/errors";
import type { Call } from "@licet/platform/rpc/call";

/**
 * Refuses a caller without a scope that the method needs for this request only.
 *
 * @throws ServiceError PERMISSION_DENIED `SCOPE_MISSING`
 */
export function requireScope(call: Call, scope: string): void {
  if (call.credential.scopes.has(scope)) return;
  throw platformError("SCOPE_MISSING", `the credential lacks the scope ${scope}`, {
    metadata: { required_scope: scope },
  });
}

import type { Decider } from "./decider.ts";
import { LicetDenied } from "./errors.ts";
import type { LocalLicet } from "./licet.ts";

/** The questions of a client that decides itself, all in terms of two. */
export function questionsOf({
  check,
  explain,
}: Pick<Decider, "check" | "explain">): Pick<LocalLicet, "check" | "checkMany" | "require" | "explain"> {
  return {
    check,
    explain,
    checkMany: (customerId, features, context) => features.map((feature) => check(customerId, feature, context)),
    require(customerId, feature, context) {
      const verdict = check(customerId, feature, context);
      if (!verdict.allowed) throw new LicetDenied(verdict);
      return verdict;
    },
  };
}

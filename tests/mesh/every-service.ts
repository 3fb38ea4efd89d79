import { globSync } from "node:fs";
import path from "node:path";
import type { DescMethod, DescService } from "@bufbuild/protobuf";

const contracts = path.join(import.meta.dirname, "../../packages/contracts/gen");

/** Every service of the contracts, the aliases of the first plan among them: found, not listed, so that a new one can't be forgotten by a test. */
const everyService: readonly DescService[] = (
  await Promise.all(
    globSync("{licet,licensing}/**/*_pb.js", { cwd: contracts })
      .sort()
      .map((file) => import(path.join(contracts, file))),
  )
)
  .flatMap((module) => Object.values(module as Readonly<Record<string, { readonly kind?: string }>>))
  .filter((exported): exported is DescService => exported.kind === "service");

/** Every method of them, with its full name. */
export const everyMethod: readonly [string, DescMethod][] = everyService.flatMap((service) =>
  service.methods.map((method): [string, DescMethod] => [`${service.typeName}/${method.name}`, method]),
);

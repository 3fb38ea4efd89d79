/**
 * `pnpm generate:go`: Go code of the contracts that the Go examples use, into examples/license-events/go/gen, which is not
 * committed. Needs Go; the plugins are tools of the examples' own module, so its go.sum says what runs.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { thirdPartyProtos, writeThirdPartyProtos } from "./third-party-protos.ts";

const root = path.resolve(import.meta.dirname, "..");
const module = "examples/license-events/go";
const plugin = (name: string, more: object = {}) => ({
  local: ["go", "-C", module, "tool", name],
  out: `${module}/gen`,
  opt: ["paths=source_relative"],
  ...more,
});
const template = {
  version: "v2",
  // The protos name no language's package: here they get this one.
  managed: {
    enabled: true,
    override: [{ file_option: "go_package_prefix", value: "licet.dev/examples/license-events/gen" }],
  },
  plugins: [plugin("protoc-gen-go", { include_imports: true }), plugin("protoc-gen-go-grpc")],
};

// Where they are, another program may be reading them.
if (!existsSync(thirdPartyProtos)) writeThirdPartyProtos();
const input = ["proto", "--path", "proto/licet/licensing/v1/licensing_service.proto"];
const buf = path.join(root, "node_modules/.bin/buf");
execFileSync(buf, ["generate", ...input, "--template", JSON.stringify(template)], { cwd: root, stdio: "inherit" });

import { defineConfig } from "tsdown";

export default defineConfig({
  entry: ["src/index.ts", "src/testing.ts", "src/gates/{express,fastify,grpc}.ts"],
  format: ["esm", "cjs"],
  platform: "node",
  target: "node20.19",
  dts: { generator: "oxc" },
  sourcemap: false,
  fixedExtension: false,
  // What is ours goes in as its source; what is published is a dependency, or must not be there.
  inputOptions: { resolve: { conditionNames: ["licet-src", "node", "import", "default"] } },
  deps: { alwaysBundle: [/^@licet\//, "big.js"], onlyBundle: ["big.js", "@bufbuild/protovalidate"] },
  report: { gzip: true },
  checks: { legacyCjs: false, pluginTimings: false },
  publint: { strict: true },
  attw: { level: "error", profile: "node16" },
});

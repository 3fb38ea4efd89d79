// Jest in ESM mode. Start it through `pnpm jest` (it needs --experimental-vm-modules and the `licet-src` condition).

/** @type {import("jest").Config} */
export default {
  roots: ["<rootDir>/packages", "<rootDir>/services", "<rootDir>/tests", "<rootDir>/scripts"],
  testMatch: ["**/*.test.ts"],
  testPathIgnorePatterns: ["/node_modules/", "/dist/"],
  modulePathIgnorePatterns: ["/dist/", "/\\.licet/"],
  extensionsToTreatAsEsm: [".ts"],
  transform: {
    "\\.ts$": ["@swc/jest", { jsc: { parser: { syntax: "typescript" }, target: "es2024" }, module: { type: "es6" } }],
  },
  // One Postgres for the whole run, named by LICET_TEST_DATABASE_URL.
  globalSetup: "<rootDir>/packages/platform/src/testing/global-setup.ts",
  globalTeardown: "<rootDir>/packages/platform/src/testing/global-teardown.ts",
  testEnvironment: "node",
  // Jest adds "import" or "require" itself, by how a module is asked for.
  testEnvironmentOptions: { customExportConditions: ["licet-src", "node", "node-addons"] },
  // Generous, because on a busy machine with two cores the first start of all services takes minutes; nearly every test that
  // hangs has failed before by a wait for a condition, which says what was missing.
  testTimeout: 240_000,
  maxWorkers: 2,
};

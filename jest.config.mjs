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
  // Generous, because the first test of a suite waits for its database on machines with two cores.
  testTimeout: 30_000,
  maxWorkers: 2,
};

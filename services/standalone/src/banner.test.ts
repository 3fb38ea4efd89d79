import { expect, test } from "@jest/globals";
import { generateApiKey } from "@licet/platform/credentials";
import { banner } from "./banner.ts";

const run = {
  grpcUrl: "http://127.0.0.1:9090",
  webUrl: "http://127.0.0.1:8080",
  metricsUrl: "http://127.0.0.1:9464/metrics",
  pid: 1,
};
const key = generateApiKey().key;
const withDemo = banner({ run: { ...run, apiKeys: { tradsys: { service: key } } }, dataDir: "/srv/licet" }, 1234);
const withoutDemo = banner({ run: { ...run, apiKeys: { platform: { operator: key } } }, dataDir: "/srv/licet" }, 1234);

test.each([withDemo, withoutDemo])("fits a terminal of 80 columns", (text) => {
  for (const line of text.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
});

test("tells where it is, with a key, and how to ask in three ways", () => {
  expect(withDemo).toContain("ready after 1.2 s");
  for (const url of Object.values(run).slice(0, 3)) expect(withDemo).toContain(`  ${url}\n`);
  expect(withDemo).toContain("/srv/licet/run.json");
  expect(withDemo).toContain(`Demo key  ${key}\n`);
  for (const program of ["npx buf curl", "grpcurl", "curl"]) expect(withDemo).toContain(`\n${program} `);
});

test("without demo data it shows the operator's first step", () => {
  expect(withoutDemo).toContain("TenantService/CreateTenant");
  expect(withoutDemo).not.toContain("cairo-capital");
});

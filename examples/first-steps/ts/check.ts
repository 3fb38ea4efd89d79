/** Decides in this process about customers of the demo data. docs/guides/sdk.md explains it. */
import { createLicet } from "@licet/sdk";
import { setting } from "./setting.ts";

const licet = createLicet({ mode: "local", address: setting("LICET_ADDRESS"), apiKey: setting("LICET_API_KEY") });
await licet.ready();

for (const customerId of ["cairo-capital", "trial-desk", "frozen-desk"]) {
  const { allowed, reason, license } = licet.check(customerId, "egx_access");
  console.log(customerId.padEnd(13), allowed ? "may" : "may not", reason, license?.plan ?? "");
}
const { violations } = licet.check("trial-desk", "basic_trading", { users: 6 });
console.log(violations.join(" "));

await licet.close();

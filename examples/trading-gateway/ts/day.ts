/** A day at the gateway: what four customers of the demo data may and may not do. Prints a line for each request. */
import { createLicet } from "@licet/sdk";
import { createGateway } from "./gateway.ts";

const customers = ["cairo-capital", "trial-desk", "lapsed-fund", "frozen-desk"];
const licet = createLicet({
  mode: "remote",
  address: setting("LICET_ADDRESS"),
  apiKey: setting("LICET_API_KEY"),
  // Patient, as what is printed is compared on machines of any speed.
  timeoutMs: 10_000,
  track: { source: "trading-gateway" },
});
await licet.ready();
const gateway = createGateway(licet, new Map(customers.map((customerId) => [`key-of-${customerId}`, customerId])));
const url = await gateway.listen({ host: "127.0.0.1", port: 0 });
// Orders of another day are others, also to usage metering.
const day = Date.now();
let orders = 0;

await order("cairo-capital", "EGX", "COMI");
await order("cairo-capital", "TADAWUL", "2222");
await order("trial-desk", "EGX", "COMI");
for (const instrument of ["BTC", "ETH", "SOL", "XRP", "ADA", "DOT"]) await order("trial-desk", "BINANCE", instrument);
await order("lapsed-fund", "BINANCE", "BTC");
await close("lapsed-fund", "BTC");
await order("frozen-desk", "BINANCE", "BTC");
await close("frozen-desk", "BTC");
await order("somebody", "BINANCE", "BTC");

await gateway.close();
const flushed = await licet.flush();
const { tracked, delivered } = licet.trackCounts();
console.log(`${tracked} orders tracked, ${delivered} delivered${flushed ? "" : ", not all in time"}`);
await licet.close();

async function order(customerId: string, exchange: string, instrument: string): Promise<void> {
  orders += 1;
  const body = JSON.stringify({ orderId: `${day}-${orders}`, exchange, instrument });
  await request(customerId, `buy ${instrument} at ${exchange}`, "/orders", { method: "POST", body });
}

async function close(customerId: string, instrument: string): Promise<void> {
  await request(customerId, `close ${instrument}`, `/positions/${instrument}`, { method: "DELETE" });
}

async function request(customerId: string, what: string, path: string, init: RequestInit): Promise<void> {
  const headers = {
    "x-desk-key": `key-of-${customerId}`,
    ...(init.body !== undefined && { "content-type": "application/json" }),
  };
  const response = await fetch(url + path, { ...init, headers });
  const text = await response.text();
  const { plan, feature, reason } = text === "" ? ({} as Record<string, string>) : JSON.parse(text);
  const answer = response.ok ? (plan ?? "done") : `${feature}: ${reason}`;
  console.log(`${customerId.padEnd(13)}  ${what.padEnd(20)}  ${response.status}  ${answer}`);
}

function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === "") throw new Error(`${name} is not set`);
  return value;
}

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { answerJson } from "./json-document.ts";
import { createLogger } from "./logging.ts";

const clock = { now: 0 };
let loads = 0;
let document: () => Promise<unknown> = async () => ({ keys: [1] });
const load = () => {
  loads++;
  return document();
};
const server = createServer(answerJson(load, createLogger({ level: "silent", name: "test" }), () => clock.now));
let url: string;

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

test("answers with the document, 304 to who has it, and loads it once in 5 s", async () => {
  const first = await fetch(url);
  expect(first.headers.get("content-type")).toBe("application/json");
  expect(first.headers.get("cache-control")).toBe("public, max-age=300");
  expect(await first.json()).toEqual({ keys: [1] });
  const etag = first.headers.get("etag") as string;
  const ask = (tag: string) => fetch(url, { headers: { "if-none-match": tag, "cache-control": "max-age=0" } });
  expect((await ask(`"other", W/${etag}`)).status).toBe(304);
  expect((await ask(`"other"`)).status).toBe(200);
  expect(loads).toBe(1);

  document = async () => ({ keys: [2] });
  clock.now += 5_000;
  const changed = await ask(etag);
  expect([changed.status, await changed.json()]).toEqual([200, { keys: [2] }]);
  expect(loads).toBe(2);
});

test("what can't be loaded is 503, not kept, and tried again by the next request", async () => {
  clock.now += 5_000;
  document = () => Promise.reject(new Error("no database"));
  const refused = await fetch(url);
  expect([refused.status, refused.headers.get("cache-control")]).toEqual([503, "no-store"]);
  expect(await refused.text()).not.toContain("database");
  document = async () => ({ keys: [3] });
  expect(await (await fetch(url)).json()).toEqual({ keys: [3] });
});

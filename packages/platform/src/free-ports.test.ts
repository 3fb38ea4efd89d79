import { once } from "node:events";
import { createServer } from "node:net";
import { expect, test } from "@jest/globals";
import { findFreePort, findFreePorts } from "./free-ports.ts";

test("finds ports that are all different, through calls, and that nobody listens on", async () => {
  const [taken = 0] = await findFreePorts(1);
  const server = createServer().listen(taken + 1, "127.0.0.1");
  // If it can't listen, somebody else does, which is as good.
  await once(server, "listening").catch(() => undefined);

  const found = (await Promise.all(Array.from({ length: 40 }, () => findFreePorts(3)))).flat();

  server.close();
  expect(new Set([taken, ...found]).size).toBe(121);
  expect(found).not.toContain(taken + 1);
  expect(await findFreePort()).not.toBe(taken);
});

test("another process that looks into its block finds it taken", async () => {
  const [port = 0] = await findFreePorts(1);
  const other = createServer().listen(port - (port % 100), "127.0.0.1");
  const listening = once(other, "listening").finally(() => other.close());
  await expect(listening).rejects.toMatchObject({ code: "EADDRINUSE" });
});

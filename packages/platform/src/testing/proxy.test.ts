import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { type FaultProxy, startFaultProxy } from "./proxy.ts";
import { until } from "./until.ts";

describe("startFaultProxy", () => {
  let server: Server;
  /** The server's halves of the connections, in their order. */
  let accepted: Socket[];
  /** What reached the server. */
  let heard: string;
  let proxy: FaultProxy;
  const clients: Socket[] = [];

  beforeEach(async () => {
    accepted = [];
    heard = "";
    server = createServer((socket) => {
      accepted.push(socket);
      socket.on("error", () => undefined);
      socket.on("data", (bytes) => {
        heard += bytes;
        socket.write(`<${bytes}>`);
      });
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    proxy = await startFaultProxy({ host: "127.0.0.1", port: (server.address() as AddressInfo).port });
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    await proxy.stop();
    server.close();
  });

  async function open(): Promise<{ socket: Socket; told: () => string; error: () => string }> {
    const socket = connect({ host: "127.0.0.1", port: proxy.port });
    clients.push(socket);
    let told = "";
    let error = "";
    socket.on("data", (bytes) => {
      told += bytes;
    });
    socket.on("error", (cause: NodeJS.ErrnoException) => {
      error = cause.code ?? "";
    });
    await once(socket, "connect");
    return { socket, told: () => told, error: () => error };
  }

  test("passes bytes both ways, and the end of either side", async () => {
    const { socket, told } = await open();
    socket.write("a");
    await until("the answer has come", () => told() === "<a>");
    accepted[0]?.end();
    await once(socket, "close");
    const second = await open();
    second.socket.end("b");
    await once(second.socket, "close");
    expect(heard).toBe("ab");
  });

  test("a black hole swallows one direction only, and gives it back late", async () => {
    const { socket, told } = await open();
    proxy.blackHole("answers");
    socket.write("a");
    await until("the request has arrived", () => heard === "a");
    const later = await open();
    later.socket.write("b");
    await until("new connections pass requests as well", () => heard === "ab");
    expect([told(), later.told()]).toEqual(["", ""]);
    proxy.restore();
    await until("the answers arrive", () => told() === "<a>" && later.told() === "<b>");
    proxy.blackHole("requests");
    accepted[0]?.write("news");
    socket.write("c");
    await until("the server is heard", () => told() === "<a>news");
    expect(heard).toBe("ab");
    proxy.restore();
    await until("the request arrives", () => heard === "abc");
  });

  test("half open: the server is gone, the client hears of it in the end; new connections pass", async () => {
    const { socket, error } = await open();
    socket.write("a");
    await until("the request has arrived", () => heard === "a");
    const gone = once(accepted[0] as Socket, "close");
    proxy.halfOpen();
    await gone;
    socket.write("lost");
    const other = await open();
    other.socket.write("b");
    await until("another connection is answered", () => other.told() === "<b>");
    expect([heard, socket.destroyed]).toEqual(["ab", false]);
    proxy.restore();
    await until("the client is told", () => error() === "ECONNRESET");
  });

  test("delay and throttle let everything arrive, whole and in order", async () => {
    const { socket, told } = await open();
    const text = "0123456789".repeat(500);
    proxy.delay(20);
    proxy.throttle(50_000);
    const begun = performance.now();
    socket.write(text);
    await until("all is there", () => heard === text);
    expect(performance.now() - begun).toBeGreaterThan(90);
    proxy.restore();
    await until("the answer is whole", () => told().replaceAll(/[<>]/g, "") === text);
  });

  test.each([
    ["end", ""],
    ["reset", "ECONNRESET"],
  ] as const)("drop by %s breaks what is open and lets new connections pass", async (how, code) => {
    const { socket, error } = await open();
    socket.write("a");
    await until("the request has arrived", () => heard === "a");
    proxy.drop(how);
    await until("the client is told", () => socket.destroyed);
    expect(error()).toBe(code);
    const { told, ...next } = await open();
    next.socket.write("b");
    await until("the next one is answered", () => told() === "<b>");
  });
});

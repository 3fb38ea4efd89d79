import { describe, expect, test } from "@jest/globals";
import { createLogger, type Logger } from "./logging.ts";

function capture(): { logger: Logger; lines: string[] } {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  return { logger: createLogger({ level: "info", name: "test", destination }), lines };
}

describe("createLogger", () => {
  test("writes one JSON object a line with level, name and time", () => {
    const { logger, lines } = capture();
    logger.info({ port: 9090 }, "listening");
    logger.debug("not shown at this level");
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      level: "info",
      name: "test",
      port: 9090,
      msg: "listening",
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    });
  });

  test.each(["authorization", "x-api-key", "apiKey", "key", "secret", "password"])(
    "redacts %s at every depth that is searched, in bindings of a child too",
    (name) => {
      const { logger, lines } = capture();
      const secret = { [name]: "hunter2" };
      logger.info(secret, "0");
      logger.info({ a: secret }, "1");
      logger.info({ a: { b: secret } }, "2");
      logger.info({ a: { b: { c: secret } } }, "3");
      logger.child(secret).info("child");
      expect(lines).toHaveLength(5);
      for (const line of lines) {
        expect(line).not.toContain("hunter2");
        expect(line).toContain("[redacted]");
      }
    },
  );

  test("leaves other names alone", () => {
    const { logger, lines } = capture();
    logger.info({ keyId: "lct_0", tenant: "tradsys" }, "changed");
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({ keyId: "lct_0", tenant: "tradsys" });
  });
});

import { expect, test } from "@jest/globals";
import fc from "fast-check";
import type { Credential } from "../credentials.ts";
import { createShortcut } from "./shortcut.ts";

const nowMs = 1_000_000;

function credential(scopes: readonly string[]): Credential {
  return { id: "lct_x", tenant: "tradsys", role: "service", scopes: new Set(scopes), kind: "api_key" };
}

test("a call is answered when every step of the pipeline would let it pass, looked at in the pipeline's order, and else left alone", () => {
  const circumstances = fc.record({
    recorded: fc.boolean(),
    full: fc.boolean(),
    leftMs: fc.option(fc.integer({ min: -5, max: 30 }), { nil: undefined }),
    scopes: fc.option(fc.subarray(["features:check", "licenses:read"]), { nil: undefined }),
    known: fc.boolean(),
  });
  fc.assert(
    fc.property(circumstances, ({ recorded, full, leftMs, scopes, known }) => {
      const asked: string[] = [];
      const answered: number[] = [];
      const ask = <T>(what: string, value: T): T => {
        asked.push(what);
        return value;
      };
      const shortcut = createShortcut({
        recorded: () => ask("telemetry", recorded),
        answered: (durationMs) => void answered.push(durationMs),
        full: () => ask("slot", full),
        now: () => nowMs,
        authenticateNow: () => ask("authentication", scopes && credential(scopes)),
        scope: "features:check",
        handler: () => ask("handler", known ? Buffer.from("reply") : undefined),
      });
      const deadlineAt = leftMs === undefined ? undefined : nowMs + leftMs;
      const reply = shortcut({ headers: {}, deadlineAt, request: Buffer.from("request") });

      const inTime = leftMs === undefined || leftMs >= 10;
      const allowed = scopes?.includes("features:check") === true;
      const passes = !recorded && !full && inTime && allowed;
      expect(reply?.toString()).toBe(passes && known ? "reply" : undefined);
      expect(answered).toHaveLength(passes && known ? 1 : 0);
      expect(asked.includes("handler")).toBe(passes);
      expect(["telemetry", "slot", "authentication", "handler"].slice(0, asked.length)).toEqual(asked);
    }),
  );
});

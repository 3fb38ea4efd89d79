import { expect, test } from "@jest/globals";
import { runDifferential } from "./differential.ts";

/** `pnpm fuzz --differential N` compares as many as one likes. */
const CASES = 20_000;

test("hand decoders and prepared replies say what generated code and handlers say", async () => {
  const { taken, differences } = await runDifferential(20_260_101, CASES);
  expect(differences).toEqual([]);
  // Each has something to compare: the valid requests, and not these alone.
  for (const name of [
    "ValidateFeatureRequest",
    "CheckFeaturesRequest",
    "BatchValidateRequest",
    "ValidateStreamRequest",
    "TrackUsageRequest",
    "TrackUsageBatchRequest",
    "prepared ValidateFeatureResponse",
    "prepared CheckFeaturesResponse",
  ]) {
    expect([name, taken[name] ?? 0]).toEqual([name, expect.any(Number)]);
    expect(taken[name]).toBeGreaterThan(CASES / 50);
  }
}, 300_000);

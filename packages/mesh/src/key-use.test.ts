import { createRouterTransport } from "@connectrpc/connect";
import { expect, test } from "@jest/globals";
import type { CredentialChanged } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { type ReportApiKeyUseRequest, TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { createLogger } from "@licet/platform/logging";
import { createKeyUse } from "./key-use.ts";

const logger = createLogger({ level: "silent", name: "test" });

/** Notes with a clock that the test moves, reporting to a licensing that remembers and may fail. */
function noting(answer: () => { keyId: string; version: bigint }[] = () => []) {
  const clock = { ms: 1_000_000 };
  const reports: ReportApiKeyUseRequest[] = [];
  const applied: CredentialChanged[] = [];
  const licensing = createRouterTransport(({ rpc }) => {
    rpc(TenantService.method.reportApiKeyUse, (request) => {
      const changed = answer();
      reports.push(request);
      return { changed };
    });
  });
  const use = createKeyUse({ licensing, apply: (changed) => applied.push(changed), logger, steadyMs: () => clock.ms });
  /** Reports told since the last look, as `[key, age]`. */
  const told = () =>
    reports.splice(0).map(({ uses }) => uses.map(({ keyId, usedAgoMs }) => [keyId, Number(usedAgoMs)]));
  return { clock, use, applied, told, reports };
}

test("a key is reported soon, and then at most once a minute, with its latest use", async () => {
  const { clock, use, told } = noting();
  use.note("a", 1n);
  clock.ms += 3_000;
  await use.report();
  expect(told()).toEqual([[["a", 3_000]]]);
  for (let second = 0; second < 56; second++) {
    clock.ms += 1_000;
    use.note("a", 1n);
    await use.report();
  }
  expect(told()).toEqual([]);
  clock.ms += 4_000;
  await use.report();
  expect(told()).toEqual([[["a", 4_000]]]);
});

test("a key that is not used is not reported again, and forgotten", async () => {
  const { clock, use, told } = noting();
  use.note("a", 1n);
  await use.report();
  expect(told()).toHaveLength(1);
  for (const minutes of [1, 2, 60]) {
    clock.ms += minutes * 60_000;
    await use.report();
    expect(told()).toEqual([]);
  }
  use.note("a", 1n);
  await use.report();
  expect(told()).toEqual([[["a", 0]]]);
});

test("many keys are told in batches of 500, and more than one look tells by the next", async () => {
  const { use, told } = noting();
  for (let key = 0; key < 10_700; key++) use.note(`key-${key}`, 1n);
  await use.report();
  expect(told().map((batch) => batch.length)).toEqual(Array(20).fill(500));
  await use.report();
  expect(told().map((batch) => batch.length)).toEqual([500, 200]);
});

test("what could not be told is told later, with its age", async () => {
  let down = true;
  const { clock, use, told } = noting(() => {
    if (down) throw new Error("down");
    return [];
  });
  use.note("a", 1n);
  await use.report();
  expect(told()).toEqual([]);
  down = false;
  clock.ms += 5_000;
  await use.report();
  expect(told()).toEqual([[["a", 5_000]]]);
});

test("the end tells what was used since the last report", async () => {
  const { clock, use, told } = noting();
  use.note("a", 1n);
  await use.report();
  clock.ms += 10;
  use.note("a", 1n);
  use.note("b", 1n);
  told();
  await use.stop();
  expect(told()).toEqual([
    [
      ["a", 0],
      ["b", 0],
    ],
  ]);
});

test("a use during a report is told by the next one", async () => {
  const { clock, use, told } = noting(() => {
    clock.ms += 1;
    use.note("a", 1n);
    return [];
  });
  use.note("a", 1n);
  await use.report();
  told();
  clock.ms += 60_000;
  await use.report();
  expect(told()).toEqual([[["a", 60_000]]]);
});

test("versions are told, and what has changed unheard is taken over", async () => {
  const { use, applied, reports } = noting(() => [{ keyId: "a", version: 3n }]);
  use.note("a", 2n);
  await use.report();
  expect(reports[0]?.uses[0]?.version).toBe(2n);
  expect(applied).toMatchObject([{ keyId: "a", version: 3n }]);
});

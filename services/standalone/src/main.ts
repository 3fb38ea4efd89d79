import { banner } from "./banner.ts";
import { readInvocation, USAGE } from "./config.ts";

/** A shutdown that takes longer is cut off; the next start recovers. */
const STOP_WITHIN_MS = 4_500;

try {
  const invocation = readInvocation(process.argv.slice(2), process.env);
  if (invocation === undefined) process.stdout.write(USAGE);
  else await run(invocation);
} catch (error) {
  fail(error);
}

async function run({ config, json }: NonNullable<ReturnType<typeof readInvocation>>): Promise<void> {
  // Loaded here, not above: a mistyped flag or --help should not wait for all services to be read.
  const { createStandalone } = await import("./service.ts");
  const licet = createStandalone(config);
  const end = async (exitCode: number) => {
    licet.watchdog(STOP_WITHIN_MS);
    await licet.stop();
    process.exit(exitCode);
  };
  // pnpm passes a Ctrl-C on that the terminal has sent us already: one is enough.
  let ending = false;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (!ending) void end(0);
      ending = true;
    });
  }
  try {
    const started = await licet.start();
    process.stdout.write(
      json ? `${JSON.stringify({ ...started.run, dataDir: started.dataDir })}\n` : banner(started, performance.now()),
    );
    fail(await licet.failed);
    await end(1);
  } catch (error) {
    // A signal during the start makes the start fail: that is no failure.
    if (ending) return;
    ending = true;
    fail(error);
    await end(1);
  }
}

/** Says what is wrong as one sentence; what led to it is for the log. */
function fail(error: unknown): void {
  process.exitCode = 1;
  process.stderr.write(`licet: ${error instanceof Error ? error.message : String(error)}\n`);
}

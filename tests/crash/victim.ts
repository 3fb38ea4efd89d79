/**
 * A standalone process that can be told to end by SIGKILL between a handler's effect and its reply. Arguments: data
 * folder, gRPC port, web port, metrics port. Only tests run it.
 */
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { createStandalone } from "@licet/standalone";
import type { Fault } from "./supervisor.ts";

/** The methods after whose effect each fault ends the process: what they did is durable, nobody has been told. */
const methods: Readonly<Partial<Record<Fault, readonly string[]>>> = {
  "after append": ["trackUsage", "trackUsageBatch"],
  "after commit": ["provisionLicense", "createCustomer"],
};

const [dataDir, grpcPort, webPort, metricsPort] = process.argv.slice(2);
let armed: readonly string[] = [];
process.on("message", (fault: Fault) => {
  armed = methods[fault] ?? [];
  process.send?.("armed");
});

const standalone = createStandalone(
  {
    dataDir,
    ephemeral: false,
    seed: false,
    host: "127.0.0.1",
    grpcPort: Number(grpcPort),
    webPort: Number(webPort),
    metricsPort: Number(metricsPort),
    databaseUrl: undefined,
    otlpEndpoint: undefined,
    logLevel: "error",
  },
  { intercept },
);
process.on("SIGTERM", async () => {
  standalone.watchdog(4_500);
  await standalone.stop();
  process.exit(0);
});
await standalone.start();
const reason = await standalone.failed;
process.stderr.write(`victim: ${reason.message}\n`);
await standalone.stop();
process.exit(1);

function intercept(binding: ServiceBinding): ServiceBinding {
  const implementation: Record<string, ServiceBinding["implementation"][string]> = {};
  for (const [name, handler] of Object.entries(binding.implementation)) {
    implementation[name] = (call, request) => {
      const reply = handler(call, request);
      if (!(reply instanceof Promise)) return reply;
      return reply.then((message) => {
        if (armed.includes(name)) process.kill(process.pid, "SIGKILL");
        return message;
      });
    };
  }
  return { ...binding, implementation };
}

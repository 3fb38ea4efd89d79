import { registerHooks } from "node:module";

/** A bug that is put into one source file of the victim as it is loaded: the suite has to notice it. */
interface Planted {
  /** The end of the file's path. */
  readonly file: string;
  /** What stands there once, and only once. */
  readonly snippet: string;
  readonly becomes: string;
}

/** By name; what each of them breaks is the check that must fail. */
const planted: Readonly<Record<string, Planted>> = {
  /** A slot is free as soon as its caller left: rapid resets run any number of handlers. */
  "slot freed on cancel": {
    file: "/packages/platform/src/rpc/middleware/slots.ts",
    snippet: "abandoned.then(free, free);",
    becomes: "free();",
  },
  /** Handlers that wait for the database pile up: without this, too few get stuck to show that slots are lost. */
  "transactions wait without a limit": {
    file: "/packages/platform/src/database/database.ts",
    snippet: "if (pool.waitingCount < maxWaiting) return pool.connect();",
    becomes: "if (maxWaiting > 0) return pool.connect();",
  },
  /** What can't be decoded is answered as a fault of ours, in the decoder's words. */
  "decoder's errors unhandled": {
    file: "/packages/platform/src/rpc/codec.ts",
    snippet: "throw malformed(schema, error);\n  }\n}\n\n/**\n * Decodes a request in",
    becomes: "throw error;\n  }\n}\n\n/**\n * Decodes a request in",
  },
};

/** Plants a bug for all modules that are loaded from here on. @throws Error when its place is not as expected. */
export function plant(name: string): void {
  const bug = planted[name];
  if (bug === undefined) throw new Error(`no planted bug is called ${JSON.stringify(name)}`);
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context);
      if (!url.endsWith(bug.file)) return loaded;
      const parts = String(loaded.source).split(bug.snippet);
      if (parts.length !== 2) throw new Error(`${name}: the snippet stands ${parts.length - 1} times in ${bug.file}`);
      return { ...loaded, source: parts.join(bug.becomes) };
    },
  });
}

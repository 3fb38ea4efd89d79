import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";

/** A snippet of a source file and what a planted bug puts in its place. */
export interface Patch {
  /** From the root of the repository. */
  readonly file: string;
  /** Occurs exactly once, else the bug can't be planted: it would rot unseen. */
  readonly from: string;
  readonly to: string;
}

const root = new URL("../", import.meta.url);

/** Plants a bug in all modules that this process loads from here on, so that the services themselves have no switch for it. */
export function plant(patches: readonly Patch[]): void {
  const byUrl = patchesByUrl(patches);
  registerHooks({
    load(url, context, nextLoad) {
      const own = byUrl.get(url);
      const loaded = nextLoad(url, context);
      return own === undefined ? loaded : { ...loaded, source: applyPatches(readFileSync(new URL(url), "utf8"), own) };
    },
  });
}

/** The patches by the URL of the file that they are for. */
export function patchesByUrl(patches: readonly Patch[]): ReadonlyMap<string, readonly Patch[]> {
  return Map.groupBy(patches, ({ file }) => new URL(file, root).href);
}

/** The source with its snippets replaced. @throws Error when a snippet does not occur exactly once. */
export function applyPatches(source: string, patches: readonly Patch[]): string {
  return patches.reduce((text, { file, from, to }) => {
    const found = text.split(from).length - 1;
    if (found !== 1) throw new Error(`${file} holds the snippet of a planted bug ${found} times, not once: ${from}`);
    return text.replace(from, () => to);
  }, source);
}

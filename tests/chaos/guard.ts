import { spawn } from "node:child_process";

/** How often the guard is told who runs, in milliseconds. */
const TELL_MS = 500;

/** Is told that all is over. */
export interface Guard {
  stop(): void;
}

/**
 * Ends processes and removes a folder once this process is gone without having stopped the guard: by SIGKILL, for example.
 * All but Postgres notice that by themselves.
 *
 * @param running ids of the processes that run at the moment.
 */
export function startGuard(folder: string, running: () => readonly number[]): Guard {
  const script = `while read -r line; do last=$line; done
    [ "$last" = over ] && exit 0
    kill -9 $last; sleep 2; rm -rf "$1"`;
  const guard = spawn("sh", ["-c", script, "sh", folder], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  guard.stdin.on("error", () => undefined);
  guard.unref();
  const tell = (): void => void guard.stdin.write(`${running().join(" ")}\n`);
  tell();
  const telling = setInterval(tell, TELL_MS);
  telling.unref();
  return {
    stop() {
      clearInterval(telling);
      guard.stdin.end("over\n");
    },
  };
}

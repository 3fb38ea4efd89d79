import { tryLockFile } from "../file-lock.ts";

// A program for tests: takes the lock of the file named by its argument, says whether it has it, and holds it until killed.
const [path = ""] = process.argv.slice(2);
process.stdout.write(tryLockFile(path) === undefined ? "busy\n" : "held\n");
process.stdin.resume();

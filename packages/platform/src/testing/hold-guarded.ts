/** Runs a program beside itself, prints its process id and stays: a test kills it. */
import { startGuarded } from "../local/guarded.ts";

const { pid } = await startGuarded(["sleep", "600"]);
process.stdout.write(`${pid}\n`);

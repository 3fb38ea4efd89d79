import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { runGuarded } from "./guarded.ts";

/** The release that Maven resolves. kafkajs needs 3.9 or at least 4.0.1, which take its old JoinGroup requests again. */
export const kafkaVersion = "4.0.1";

const OLDEST_JAVA = 17;
/** How often Maven is asked; what it has got so far it keeps. */
const ATTEMPTS = 3;
const cache = path.resolve(import.meta.dirname, `../../../../node_modules/.cache/kafka/${kafkaVersion}`);

/** The folder of Kafka's programs and of what they need, once {@link fetchKafka} has put it there. */
export const kafkaLibraries: string = path.join(cache, "lib");

/** What is missing to run Kafka here and how to get it, or undefined when nothing is. */
export function whyNoKafka(): string | undefined {
  const java = spawnSync("java", ["-version"], { encoding: "utf8" });
  const version = Number(/version "(\d+)/.exec(java.stderr ?? "")?.[1]);
  if (!(version >= OLDEST_JAVA)) {
    return `there is no Java ${OLDEST_JAVA} or newer to run it with (Debian: apt-get install openjdk-17-jre-headless maven)`;
  }
  if (existsSync(kafkaLibraries) || spawnSync("mvn", ["-v"]).status === 0) return undefined;
  return "there is no Maven (mvn) to fetch it with (Debian: apt-get install maven)";
}

/** Whether Kafka lies here already. */
export function hasKafka(): boolean {
  return existsSync(kafkaLibraries);
}

/** Fetches Kafka and what it needs at run time into node_modules/.cache, unless it is there. */
export async function fetchKafka(signal: AbortSignal | undefined): Promise<void> {
  if (hasKafka()) return;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(path.join(cache, "resolving-"));
  try {
    await writeFile(path.join(work, "pom.xml"), pom);
    const goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
    const args = ["-q", "-B", goal, "-DincludeScope=runtime", `-DoutputDirectory=${path.join(work, "lib")}`];
    for (let attempt = 1, fetched = false; !fetched; attempt++) {
      fetched = await runGuarded(["mvn", ...args], { cwd: work, signal }).then(
        () => true,
        (cause: unknown) => {
          signal?.throwIfAborted();
          if (attempt < ATTEMPTS) return false;
          throw new Error(`Kafka ${kafkaVersion} can't be fetched: ${(cause as Error).message}`, { cause });
        },
      );
    }
    // Another process may have been faster; what it fetched is the same.
    await rename(path.join(work, "lib"), kafkaLibraries).catch((error: unknown) => {
      if (!hasKafka()) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.licet</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>${kafkaVersion}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
`;

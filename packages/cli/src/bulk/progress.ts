/** The width of a terminal that is taken for granted. */
const COLUMNS = 80;
/** How often a line is written where there is no terminal, in milliseconds. */
const LINE_MS = 5_000;

/** One line that says how far something is. */
export interface Progress {
  show(line: string): void;
  /** Leaves the last line standing. */
  end(): void;
}

/** Shows progress on a terminal by one line that is written over, elsewhere by a line every few seconds. */
export function createProgress(stream: NodeJS.WriteStream): Progress {
  let shown = "";
  let writtenAt = Number.NEGATIVE_INFINITY;
  return {
    show(line) {
      const text = line.slice(0, COLUMNS - 1);
      if (stream.isTTY) stream.write(`\r${text.padEnd(shown.length)}`);
      else if (performance.now() - writtenAt >= LINE_MS) {
        stream.write(`${text}\n`);
        writtenAt = performance.now();
      }
      shown = text;
    },
    end() {
      if (stream.isTTY && shown !== "") stream.write("\n");
      shown = "";
    },
  };
}

/** A number with its thousands apart. */
export function count(value: bigint | number): string {
  return value.toLocaleString("en-US");
}

/** Cuts sentences to lines that fit, the later ones indented. */
export function wrap(text: string, indent: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (longer.length <= COLUMNS || line.trim() === "") line = longer;
    else {
      lines.push(line);
      line = `${indent}${word}`;
    }
  }
  return `${[...lines, line].flatMap(pieces).join("\n")}\n`;
}

/** A word alone can be longer than a line. */
function pieces(line: string): string[] {
  return line.match(new RegExp(`.{1,${COLUMNS}}`, "gsu")) ?? [line];
}

// Spreadsheets take a cell for a formula that begins with one of these (OWASP, CSV injection): what a customer wrote into a
// name would run on the machine of whoever opens an export.
const FORMULA = /^[=+\-@\t\r]/;
/** Texts that {@link guarded} would change, or has changed. */
const AMBIGUOUS = /^'['=+\-@\t\r]/;

/**
 * A text as a cell that no spreadsheet takes for a formula: with an apostrophe before it where needed. What looks as if it had
 * got one gets one too, so that {@link unguarded} brings back every text.
 */
export function guarded(text: string): string {
  return FORMULA.test(text) || AMBIGUOUS.test(text) ? `'${text}` : text;
}

/** The text of a cell; the inverse of {@link guarded}. A name such as `'s-Hertogenbosch` stays as it is. */
export function unguarded(cell: string): string {
  return AMBIGUOUS.test(cell) ? cell.slice(1) : cell;
}

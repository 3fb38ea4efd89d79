/** Errors of Node's sockets and of Postgres that mean: no connection, or none any more. Class 08 and 57P0x are Postgres's. */
const CONNECTION_CODES =
  /^(ECONN\w+|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|08\w{3}|57P0[1-5]|53300)$/;

/** What pg says in errors of its own, which carry no code. */
const CONNECTION_TEXTS =
  /^(Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error|Client was closed)/;

/** Whether `error` means that the database could not be reached or the connection was lost, rather than a refused statement. */
export function isConnectionError(error: unknown): boolean {
  return CONNECTION_CODES.test(codeOf(error) ?? "") || CONNECTION_TEXTS.test(messageOf(error));
}

/**
 * SQLSTATEs that say nothing about the data or the statement: 25006 read-only (a standby), 25P03 and 25P04 a transaction
 * that took too long, 40 rollback, 53 resources (disk, memory), 55 object not in the needed state (lock timeout), 57
 * operator (shutdown, statement timeout), 58 system (files).
 */
const PASSING_STATES = /^(25006|25P0[34]|(40|53|55|57|58)\w{3})$/;

/**
 * Whether `error` means that the database can't work now: it can't be reached, or it is short of something, in recovery,
 * or gave up waiting. The same work may succeed later without anything being changed.
 */
export function isPassingError(error: unknown): boolean {
  return isConnectionError(error) || PASSING_STATES.test(codeOf(error) ?? "");
}

/** The five-letter SQLSTATE or the socket's code; undefined for errors without one. */
export function codeOf(error: unknown): string | undefined {
  return isObject(error) && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

function messageOf(error: unknown): string {
  return isObject(error) && "message" in error ? String(error.message) : String(error);
}

/** Not `instanceof Error`: under Jest the errors of Node's own modules come from another realm. */
function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** One sentence for a person who starts a program: which server, what is wrong, where to look. Never shows the password. */
export function connectionError(url: string, cause: unknown): Error {
  const { host, username, pathname } = new URL(url);
  const code = codeOf(cause);
  // Several addresses refused: Node's AggregateError has a code and no text.
  const text = messageOf(cause) || code;
  if (code === "28P01" || code === "28000") {
    return new Error(`Postgres at ${host} refuses the login of user ${username}: check DATABASE_URL (${text})`, {
      cause,
    });
  }
  if (code === "3D000") {
    return new Error(`Postgres at ${host} has no database ${pathname.slice(1)}: check DATABASE_URL`, { cause });
  }
  return new Error(`cannot reach Postgres at ${host}: check DATABASE_URL and that the server runs (${text})`, {
    cause,
  });
}

// Requests of the console to its hub, with the console's token when it has one.

const TOKEN = 'evenkeel-console-token';
const TIMEOUT_MS = 5000;

/** The hub answered, and the answer was no. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Keeps the token until this tab closes. */
export function setToken(token) {
  sessionStorage.setItem(TOKEN, token.trim());
}

/** A token in the address is taken from it, so that it does not stay in the history or get copied along. */
function takeTokenFromAddress() {
  const address = new URL(location.href);
  const token = address.searchParams.get('token');
  if (token === null) return;
  setToken(token);
  address.searchParams.delete('token');
  history.replaceState(null, '', address);
}

/** One request with JSON both ways. Throws `Refused`, or whatever fetch throws when there is no answer. */
export async function request(method, path, body) {
  const token = sessionStorage.getItem(TOKEN);
  const response = await fetch(path, {
    method,
    headers: {
      ...(token ? { Authorization: `Bearer ${token}` } : {}),
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
    },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: 'no-store',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (response.ok) return response.json();
  const answer = await response.json().catch(() => ({}));
  throw new Refused(response.status, answer.error ?? `The hub answered with status ${response.status}.`);
}

takeTokenFromAddress();

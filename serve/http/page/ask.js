// One request to the server, with the API key if there is one; and what its refusals mean.

const KEY = "lockstep.key"; // of this tab only, and gone with it

const REASONS = {
  0: "The server cannot be reached. Is it running, and is the network up?",
  401: "The server wants an API key.",
  403: "The server does not answer pages from this address.",
  404: "This model is no longer served. Load the page again.",
  408: "The upload took too long.",
  413: "The image is larger than this server accepts.",
  415: "The server does not take files of this kind.",
  422: "This is no image that can be read.",
  429: "The server has more to do than it can take.",
  503: "The server takes no requests at the moment.",
  504: "There was no answer in time.",
};

// Why there is no answer: `status` is that of HTTP, or 0 if the server was not reached.
export class Failure extends Error {
  constructor(status, details = "", seconds = null) {
    const reason = REASONS[status] ?? (status < 500 ? "The server refused the request." : "The server failed.");
    super(seconds ? `${reason} Try again in ${seconds} s.` : reason);
    this.status = status;
    this.details = details;
  }

  get mayPass() {
    return [0, 401, 408, 429, 500, 502, 503, 504].includes(this.status);
  }
}

// A browser that stores nothing throws here; then the key lives in memory alone.
function stored(value) {
  try {
    if (value !== undefined) sessionStorage.setItem(KEY, value);
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return value ?? "";
  }
}

let key = stored();

export const hasKey = () => key !== "";

export function setKey(value) {
  key = stored(value);
}

// The JSON of the answer, and its headers. Throws Failure.
export async function ask(path, options = {}) {
  const headers = { ...options.headers, ...hasKey() && { Authorization: `Bearer ${key}` } };
  let response, text;
  try {
    response = await fetch(path, { ...options, headers });
    text = await response.text();
  } catch {
    throw new Failure(0);
  }
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    if (response.ok) throw new Failure(500, "The answer is not JSON.");
  }
  if (response.ok) return [body, response.headers];
  const details = typeof body?.error === "string" ? body.error : `HTTP status ${response.status}`;
  throw new Failure(response.status, details, response.headers.get("Retry-After"));
}

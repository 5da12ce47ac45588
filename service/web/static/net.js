// Loads documents of the server; an unchanged one is not sent again.

const KEPT = 60;
const known = new Map(); // by URL: the last document and its ETag

export function url(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(given).toString();
  return query ? `${path}?${query}` : path;
}

// The last document at a path, without a request; null where there is none.
export function kept(path, parameters = {}) {
  return known.get(url(path, parameters))?.document ?? null;
}

const loading = new Map(); // by URL: the request that is under way

export function load(path, parameters = {}) {
  const at = url(path, parameters);
  if (!loading.has(at)) loading.set(at, request(at).finally(() => loading.delete(at)));
  return loading.get(at);
}

// A document that the database did not give in time is still being read: it is requested again before that is an error.
const ATTEMPTS = 3, PAUSE = 1000;

async function request(at, attempt = 1) {
  const before = known.get(at);
  const headers = before ? { "If-None-Match": before.etag } : {};
  const response = await fetch(at, { headers, cache: "no-store", signal: AbortSignal.timeout(10000) });
  if (response.status === 304 && before) return before.document;
  if (response.status === 503 && attempt < ATTEMPTS && at !== "api/now") {
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    return request(at, attempt + 1);
  }
  const document = await response.json().catch(() => ({ error: `HTTP ${response.status}` }));
  if (!response.ok) throw new Error(document.error ?? `HTTP ${response.status}`);
  known.delete(at);
  if (known.size >= KEPT) known.delete(known.keys().next().value);
  known.set(at, { etag: response.headers.get("ETag"), document });
  return document;
}

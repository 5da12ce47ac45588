// Creates elements from text, never from markup, so that no outcome name can inject any.

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

export const byId = (id) => document.getElementById(id);

// Escapes control characters, line breaks and characters that change the text direction.
export function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cs}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);
}

export function table(headings, rows, caption) {
  const head = headings.map((each) => el("th", { scope: "col", class: each.number ? "number" : null }, each.text ?? each));
  const body = rows.map((row) =>
    el("tr", { class: row.fresh ? "fresh" : null }, row.cells.map((cell, place) => {
      const kind = headings[place].number ? "number" : headings[place].when ? "when" : null;
      return el("td", { class: kind }, cell instanceof Node ? cell : visible(cell ?? "–"));
    })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

const known = new Map(); // by URL: the last document and its ETag

// Loads the document at a path; `changed` says whether it differs from the last one.
export async function load(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  const url = query ? `${path}?${query}` : path;
  const before = known.get(url);
  const headers = before ? { "If-None-Match": before.etag } : {};
  const response = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (response.status === 304) return { document: before.document, changed: false };
  const data = await response.json().catch(() => ({ error: `HTTP ${response.status}` }));
  if (!response.ok) throw new Error(data.error ?? `HTTP ${response.status}`);
  if (known.size > 40) known.delete(known.keys().next().value);
  known.set(url, { etag: response.headers.get("ETag"), document: data });
  return { document: data, changed: true };
}

// Fills a select and keeps the selection if it is among the choices.
export function options(select, choices) {
  const selected = select.value;
  const same = choices.length === select.options.length &&
    choices.every(([value, text], place) => select.options[place].value === value && select.options[place].text === visible(text));
  if (same) return;
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value }, visible(text))));
  if (choices.some(([value]) => value === selected)) select.value = selected;
}

export const STATES = {
  C: "complete", R: "complete, restated since", D: "complete, unconfirmed", W: "waiting for its delay",
  A: "active, being extracted", L: "late", N: "not requested", F: "failed",
};
export const LETTERS = {
  complete: "C", doubted: "D", waiting: "W", running: "A", late: "L", "not requested": "N", failed: "F",
};
export const STATE_NAMES = { doubted: "complete, unconfirmed", running: "being extracted" };

export const glyph = (letter) => (letter === "C" ? "·" : letter);

export const mark = (letter) => el("span", { class: `mark ${letter}`, title: STATES[letter], "aria-hidden": "true" }, glyph(letter));

export function when(instant) { // 2024-01-31T02:03:04.000Z
  return instant ? `${instant.slice(0, 10)} ${instant.slice(11, 19)}Z` : "–";
}

export function localParts(instant, timezone) {
  const shape = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  let parts;
  try {
    parts = new Intl.DateTimeFormat("en-CA", { ...shape, timeZone: timezone }).formatToParts(new Date(instant));
  } catch {
    parts = new Intl.DateTimeFormat("en-CA", { ...shape, timeZone: "UTC" }).formatToParts(new Date(instant));
  }
  const of = Object.fromEntries(parts.map((part) => [part.type, part.value]));
  return { day: `${of.year}-${of.month}-${of.day}`, time: `${of.hour}:${of.minute}` };
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.round(whole / 60)} min`;
  if (whole < 48 * 3600) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} days`;
}

export const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

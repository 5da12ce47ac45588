// Elements out of text, never out of markup: whatever an outcome is called, it is shown and not obeyed.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) made.append(child instanceof Node ? child : String(child));
  }
  return made;
}

export const byId = (id) => document.getElementById(id);

// Characters that control a terminal, break the line or turn it around are spelled out.
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

const known = new Map(); // by URL: what was answered last, and its ETag

// The document at a path, and whether it is another one than last time.
export async function ask(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  const url = query ? `${path}?${query}` : path;
  const before = known.get(url);
  const headers = before ? { "If-None-Match": before.etag } : {};
  const response = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (response.status === 304) return { document: before.document, changed: false };
  const told = await response.json().catch(() => ({ error: `HTTP ${response.status}` }));
  if (!response.ok) throw new Error(told.error ?? `HTTP ${response.status}`);
  if (known.size > 40) known.delete(known.keys().next().value);
  known.set(url, { etag: response.headers.get("ETag"), document: told });
  return { document: told, changed: true };
}

// Fills a select, keeping what is chosen where it is still there.
export function options(select, choices) {
  const chosen = select.value;
  const same = choices.length === select.options.length &&
    choices.every(([value, text], place) => select.options[place].value === value && select.options[place].text === visible(text));
  if (same) return;
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value }, visible(text))));
  if (choices.some(([value]) => value === chosen)) select.value = chosen;
}

export const STATES = {
  C: "complete", R: "complete, restated since", D: "complete, in doubt", W: "waiting for its delay", A: "being asked now",
  L: "late", N: "never asked", F: "failed",
};
export const LETTERS = {
  complete: "C", doubted: "D", waiting: "W", "being asked": "A", late: "L", "never asked": "N", failed: "F",
};

export const glyph = (letter) => (letter === "C" ? "·" : letter);

export const mark = (letter) => el("span", { class: `mark ${letter}`, title: STATES[letter], "aria-hidden": "true" }, glyph(letter));

export function when(instant) { // 2024-01-31T02:03:04.000Z
  return instant ? `${instant.slice(0, 10)} ${instant.slice(11, 19)}Z` : "–";
}

export function localDay(instant, timezone) {
  return localParts(instant, timezone).day;
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

export function lasting(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.round(whole / 60)} min`;
  if (whole < 48 * 3600) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} days`;
}

export const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

// Creates elements from text, never from markup, so that no name can inject any.

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const child of children.flat(3)) {
    if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

export const byId = (id) => document.getElementById(id);

// Escapes control characters, line breaks and characters that change the text direction.
export function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cs}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);
}

// A name that may be in any script, apart from the text around it.
export const name = (text) => el("bdi", {}, visible(text));

export const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

// A table that scrolls within its own box; on a narrow screen a line says so.
export function scrolling(label, table, kind = "") {
  const box = el("div", { class: `scroll ${kind}`, tabindex: "0", role: "region", "aria-label": label }, table);
  const hint = el("p", { class: "scroll-hint" }, "Scroll sideways for more columns →");
  const frame = el("div", { class: "card bare" }, hint, box);
  const measure = () => frame.classList.toggle("scrolls", box.scrollWidth > box.clientWidth + 1);
  new ResizeObserver(measure).observe(box);
  new ResizeObserver(measure).observe(table);
  return frame;
}

export async function copy(text, said = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // without https, or not allowed
    const area = el("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(said);
}

export function toast(text) {
  document.querySelector(".toast")?.remove();
  const shown = el("div", { class: "toast", role: "status" }, text);
  document.body.append(shown);
  setTimeout(() => shown.remove(), 2500);
}

export const copyButton = (text, label = "Copy") => el("button", { type: "button", "aria-label": `${label}: ${text}`, onclick: () => copy(text) }, label);

export function segments(label, choices, chosen, choose) {
  return el("span", { class: "seg", role: "group", "aria-label": label }, choices.map(([value, text]) =>
    el("button", { type: "button", "aria-pressed": String(value === chosen), "data-value": value, onclick: () => choose(value) }, text)));
}

export const loading = () => el("div", { class: "loading", role: "status" }, "Loading…", el("div", { class: "bone" }), el("div", { class: "bone" }), el("div", { class: "bone" }));

export const empty = (title, ...words) => el("div", { class: "card empty" }, el("b", {}, title), words);

export const failure = (error) => el("div", { class: "card empty failure", role: "alert" }, el("b", {}, "This cannot be shown now"), visible(error.message));

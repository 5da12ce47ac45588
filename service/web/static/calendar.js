// A year of one org: a column for each week, a letter for each day; arrow keys move, Enter opens a day.

import { byId, el, visible } from "./dom.js";
import * as format from "./format.js";
import { set, state } from "./state.js";
import { RANK, STATES, counted, glyph, mark } from "./states.js";

const DAY = 86400000, HALF_YEAR = 182, LEAST = 28;
const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
let drawn = ""; // what is in the box

export function show(box, document, only, selected, open) {
  const key = JSON.stringify([document, only, selected]);
  if (drawn === key && box.firstChild) return;
  drawn = key;
  const focused = box.contains(globalThis.document.activeElement) ? globalThis.document.activeElement.id : null;
  const jobs = Object.entries(document.jobs).filter(([job]) => !only || job === only);
  if (!jobs.length) {
    box.replaceChildren(el("p", { class: "quiet" }, "This org has no jobs."));
    return;
  }
  const letters = new Set(jobs.flatMap(([, { days }]) => [...days]));
  const legend = el("ul", { class: "key", "aria-label": "Letters" }, [...RANK].filter((letter) => STATES[letter] && letters.has(letter)).map((letter) => el("li", {}, mark(letter), STATES[letter])));
  const first = trimmed(document, jobs.map(([, { days }]) => days));
  box.replaceChildren(legend, ...jobs.map(([job, each]) => calendar(document, job, each, first, selected, open)), tools(document));
  for (const each of box.querySelectorAll(".scroll")) each.scrollLeft = each.scrollWidth;
  if (focused) byId(focused)?.focus({ preventScroll: true });
}

// The days before the first window are left out, but at least four weeks are shown.
function trimmed(document, all) {
  const blank = Math.min(...all.map((days) => days.search(/[^.]/)).map((at) => (at < 0 ? Infinity : at)));
  return blank === Infinity ? 0 : Math.max(0, Math.min(blank, all[0].length - LEAST));
}

function tools(document) {
  const end = format.shift(document.first, Object.values(document.jobs)[0].days.length);
  const move = (days) => { const to = format.shift(end, days); set({ until: to > document.today ? null : to }); };
  return el("p", { class: "tools" }, el("button", { type: "button", id: "earlier", onclick: () => move(-HALF_YEAR) }, "◀ Earlier"),
    el("button", { type: "button", id: "later", disabled: !state().parameters.until, onclick: () => move(HALF_YEAR) }, "Later ▶"),
    el("span", { class: "quiet" }, `Days of ${document.timezone}`));
}

function calendar(document, job, { days, notes, window }, skip, selected, open) {
  const first = format.shift(document.first, skip), letters = days.slice(skip), start = Date.parse(first);
  const lead = (new Date(start).getUTCDay() + 6) % 7, weeks = Math.ceil((lead + letters.length) / 7); // lead: days of the first week before it
  const cells = [];
  const rows = WEEKDAYS.map((weekdayName, weekday) => {
    const row = el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, weekday % 2 ? el("span", { class: "unseen" }, weekdayName) : weekdayName));
    for (let week = 0; week < weeks; week += 1) {
      const place = week * 7 + weekday - lead;
      row.append(place < 0 || place >= letters.length ? el("td", { class: "none", role: "gridcell", "aria-hidden": "true" }) : (cells[place] = cell(job, format.shift(first, place), letters[place], notes, selected)));
    }
    return row;
  });
  const chosen = cells.findIndex((each) => each.dataset.day === selected), last = letters.search(/[^.][.]*$/);
  cells[chosen >= 0 ? chosen : last >= 0 ? last : cells.length - 1].tabIndex = 0;
  const grid = el("table", { role: "grid", "aria-label": `${visible(document.org)} ${visible(job)}: coverage by day` }, el("thead", {}, months(start - lead * DAY, weeks)), el("tbody", {}, rows));
  grid.addEventListener("click", (event) => choose(event.target.closest("td[data-day]"), job, open));
  grid.addEventListener("keydown", (event) => key(cells, event, job, open));
  return el("div", { class: "calendar", "data-org": document.org, "data-job": job }, el("h2", {}, visible(job), el("span", { class: "quiet" }, ` one window per ${window}`)),
    el("div", { class: "scroll" }, grid), el("p", { class: "quiet" }, counted(letters)));
}

function cell(job, day, letter, notes, selected) {
  const label = `${format.day(day)}: ${STATES[letter] ?? "no window"}${notes[day] ? ` (${notes[day]})` : ""}`;
  return el("td", { role: "gridcell", id: `day-${job}-${day}`, tabindex: "-1", class: letter === "." ? "none" : `day-${letter}`, title: label, "aria-label": label, "aria-selected": String(day === selected), "data-day": day, "data-state": letter }, letter === "." ? "" : glyph(letter));
}

function months(monday, weeks) {
  const row = el("tr", {}, el("td", {}));
  let begun = 0;
  const month = (week) => new Date(monday + (week * 7 + 6) * DAY).toLocaleDateString("en-GB", { month: "short", year: "numeric", timeZone: "UTC" });
  for (let week = 1; week <= weeks; week += 1) {
    if (week === weeks || month(week) !== month(begun)) {
      const text = month(begun), long = week - begun > 2;
      row.append(el("td", { colspan: week - begun, class: "none l quiet" }, long ? text.replace(` ${new Date().getFullYear()}`, "") : ""));
      begun = week;
    }
  }
  return row;
}

function key(cells, event, job, open) {
  const at = cells.indexOf(event.target);
  if (at < 0) return;
  const steps = { ArrowLeft: -7, ArrowRight: 7, ArrowUp: -1, ArrowDown: 1, Home: -at, End: cells.length - 1 - at };
  if (event.key in steps) {
    const to = cells[Math.min(cells.length - 1, Math.max(0, at + steps[event.key]))];
    event.target.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  } else if (event.key === "Enter" || event.key === " ") choose(event.target, job, open);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function choose(cell_, job, open) {
  if (cell_ && cell_.dataset.state !== ".") open(job, cell_.dataset.day);
}

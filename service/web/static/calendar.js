// The coverage calendar: a column for each week, a letter for each day; arrow keys move, Enter opens a day.

import { STATES, byId, el, glyph, load, many, mark, visible } from "./dom.js";

const DAY = 86400000;
const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const grids = new Map(); // by org and job: { first, length, cells, letters, element }
let open = () => {};
let end = null; // null is today

export function start(openDay) {
  open = openDay;
  byId("legend").replaceChildren(
    ...Object.entries(STATES).map(([letter, words]) => el("li", {}, mark(letter), ` ${words}`)));
  byId("earlier").addEventListener("click", () => move(-182));
  byId("later").addEventListener("click", () => move(182));
}

function move(days) {
  const moved = new Date((end ?? new Date()).getTime() + days * DAY);
  end = moved >= new Date() ? null : moved;
  byId("later").disabled = end === null;
  byId("calendars").dispatchEvent(new CustomEvent("moved"));
}

export async function refresh(orgs) {
  const requests = orgs.map((org) => load("api/calendar", end ? { org, to: iso(end) } : { org }));
  const calendars = (await Promise.all(requests)).map((response) => response.document);
  calendars.forEach(trim);
  const present = new Set();
  for (const each of calendars) {
    for (const [job, days] of Object.entries(each.jobs)) {
      const key = `${each.org}/${job}`;
      present.add(key);
      show(key, each, job, days);
    }
  }
  for (const [key, grid] of grids) {
    if (!present.has(key)) {
      grid.element.remove();
      grids.delete(key);
    }
  }
  if (!present.size) byId("calendars").replaceChildren(el("p", { class: "quiet" }, "This org has no jobs."));
}

// Removes the days before the first window, but shows at least four weeks.
function trim(calendar) {
  if (calendar.trimmed) return;
  calendar.trimmed = true;
  const jobs = Object.values(calendar.jobs);
  const blank = Math.min(...jobs.map(({ days }) => days.search(/[^.]/)).map((at) => (at < 0 ? Infinity : at)));
  const cut = blank === Infinity ? 0 : Math.max(0, Math.min(blank, jobs[0].days.length - 28));
  calendar.first = dayAt(calendar.first, cut);
  for (const job of jobs) job.days = job.days.slice(cut);
}

function show(key, calendar, job, { days, notes, window }) {
  let grid = grids.get(key);
  if (!grid || grid.first !== calendar.first || grid.letters.length !== days.length) {
    const made = build(calendar, job, days, window);
    if (grid) grid.element.replaceWith(made.element);
    else byId("calendars").append(made.element);
    grids.set(key, made);
    made.scroll.scrollLeft = made.scroll.scrollWidth;
    grid = made;
  }
  const counts = {};
  for (let place = 0; place < days.length; place += 1) {
    const letter = days[place], day = dayAt(calendar.first, place), note = notes[day] ?? "";
    counts[letter] = (counts[letter] ?? 0) + 1;
    if (grid.letters[place] === letter && grid.notes[place] === note) continue;
    paint(grid.cells[place], day, letter, note, grid.painted);
    grid.letters[place] = letter;
    grid.notes[place] = note;
  }
  grid.painted = true;
  const letters = Object.keys(STATES).filter((letter) => counts[letter]);
  grid.summary.textContent = letters.map((letter) => `${many(counts[letter], "day")} ${STATES[letter]}`).join(" · ");
  if (!grid.cells.some((cell) => cell.tabIndex === 0)) {
    const last = grid.letters.findLastIndex((letter) => letter !== ".");
    grid.cells[last < 0 ? grid.cells.length - 1 : last].tabIndex = 0;
  }
}

function paint(cell, day, letter, note, fresh) {
  const words = STATES[letter] ?? "no window";
  const label = `${day} ${WEEKDAYS[(new Date(day).getUTCDay() + 6) % 7]}: ${words}${note ? ` (${note})` : ""}`;
  cell.className = letter === "." ? "none" : letter;
  cell.textContent = letter === "." ? "" : glyph(letter);
  cell.title = label;
  cell.setAttribute("aria-label", label);
  cell.dataset.state = letter;
  if (fresh) cell.classList.add("fresh");
}

function build(calendar, job, days, window) {
  const org = calendar.org, first = Date.parse(calendar.first);
  const lead = (new Date(first).getUTCDay() + 6) % 7; // days of the first week before it
  const weeks = Math.ceil((lead + days.length) / 7);
  const cells = [];
  const rows = WEEKDAYS.map((name, weekday) => {
    const row = el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, weekday % 2 ? "" : name));
    for (let week = 0; week < weeks; week += 1) {
      const place = week * 7 + weekday - lead;
      const cell = el("td", { role: "gridcell", tabindex: "-1" });
      if (place < 0 || place >= days.length) {
        cell.className = "none";
        cell.removeAttribute("tabindex");
        cell.setAttribute("aria-hidden", "true");
      } else {
        cell.dataset.day = dayAt(calendar.first, place);
        cells[place] = cell;
      }
      row.append(cell);
    }
    return row;
  });
  const grid = el("table", { role: "grid", "aria-label": `${org} ${job}: coverage by day, ${calendar.timezone}` },
    el("thead", {}, months(first - lead * DAY, weeks)), el("tbody", {}, rows));
  const summary = el("p", { class: "quiet" });
  const scroll = el("div", { class: "scroll" }, grid);
  const element = el("div", { class: "calendar", "data-org": org, "data-job": job },
    el("h3", {}, visible(`${org} · ${job}`), el("span", { class: "quiet" }, ` one window per ${window}, ${calendar.timezone}`)),
    scroll, summary);
  const made = { first: calendar.first, element, scroll, summary, cells, letters: Array(days.length).fill(""), notes: Array(days.length).fill(""), painted: false };
  grid.addEventListener("click", (event) => choose(made, event.target.closest("td[data-day]"), org, job));
  grid.addEventListener("keydown", (event) => key(made, event, org, job));
  return made;
}

function months(monday, weeks) {
  const row = el("tr", {}, el("th", {}));
  let begun = 0;
  const name = (week) => new Date(monday + (week * 7 + 6) * DAY).toISOString().slice(0, 7);
  for (let week = 1; week <= weeks; week += 1) {
    if (week === weeks || name(week) !== name(begun)) {
      const long = week - begun > 2;
      row.append(el("th", { colspan: week - begun, scope: "colgroup" }, long ? name(begun) : ""));
      begun = week;
    }
  }
  return row;
}

function key(grid, event, org, job) {
  const at = grid.cells.indexOf(event.target);
  if (at < 0) return;
  const steps = { ArrowLeft: -7, ArrowRight: 7, ArrowUp: -1, ArrowDown: 1, Home: -at, End: grid.cells.length - 1 - at };
  if (event.key in steps) {
    const to = grid.cells[Math.min(grid.cells.length - 1, Math.max(0, at + steps[event.key]))];
    event.target.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  } else if (event.key === "Enter" || event.key === " ") {
    choose(grid, event.target, org, job);
  } else return;
  event.preventDefault();
}

function choose(grid, cell, org, job) {
  if (!cell || cell.dataset.state === ".") return;
  for (const each of grid.cells) if (each.tabIndex === 0) each.tabIndex = -1;
  cell.tabIndex = 0;
  open(org, job, cell.dataset.day, cell);
}

export function cellOf(org, job, day) {
  return grids.get(`${org}/${job}`)?.cells.find((cell) => cell.dataset.day === day) ?? null;
}

const iso = (date) => date.toISOString().slice(0, 10);
const dayAt = (first, place) => iso(new Date(Date.parse(first) + place * DAY));

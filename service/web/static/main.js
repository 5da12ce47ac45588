// Shows the view that the URL names, keeps it up to date while the page is visible, and handles the keys.

import { byId, el, failure, many, visible } from "./dom.js";
import * as flow from "./flow.js";
import * as format from "./format.js";
import * as health from "./health.js";
import { load } from "./net.js";
import * as overview from "./overview.js";
import { go, link, start, state } from "./state.js";

const INTERVAL = { overview: 20000, flow: 30000, health: 5000 }; // ms
const INTERVAL_MAX = 60000, RETRY = 2000;
const VIEWS = { overview, flow, health };
const TITLES = { overview: "Overview", flow: "Flow", health: "Health" };
let now = null; // the document of the last poll
let current = null; // the view and the org that are shown
let incomplete = false; // the view could not be loaded
let timer = 0, failures = 0, polls = 0, turn = 0, prefix = "";

function orgOf(parameters) {
  const orgs = Object.keys(now?.orgs ?? {});
  if (!now) return document.body.dataset.org;
  return orgs.includes(parameters.org) ? parameters.org : orgs[0];
}

function withOrg(parameters) {
  return { ...parameters, org: orgOf(parameters) };
}

function header() {
  const { view, parameters } = state(), org = orgOf(parameters);
  byId("views").hidden = false;
  byId("help-open").hidden = false;
  put(byId("views"), Object.entries(TITLES).map(([each, text]) =>
    el("a", { href: link(each, { org: parameters.org }), "data-go": true, "aria-current": each === view ? "page" : null }, text)));
  document.querySelector(".brand").href = link("overview", { org: parameters.org });
  document.querySelector(".brand").dataset.go = "";
  if (!now) return;
  const select = byId("org"), names = Object.keys(now.orgs);
  byId("org-label").hidden = names.length < 2;
  if (names.join() !== [...select.options].map((option) => option.value).join()) select.replaceChildren(...names.map((each) => el("option", { value: each }, visible(each))));
  select.value = org;
  const unknown = parameters.org && parameters.org !== org ? [el("b", { class: "warn" }, `There is no org “${visible(parameters.org)}”: this is ${org}`)] : [];
  put(byId("fresh"), [...unknown, ...freshness(org)].map((part) => el("span", {}, part)));
}

// What has not changed keeps its focus, and is not announced again.
function put(box, children) {
  const made = el("div", {}, children);
  if (made.innerHTML !== box.innerHTML) box.replaceChildren(...made.childNodes);
}

// One line: through which day the org's figures are complete, what was restated today, and the number of problems.
function freshness(org) {
  const state = now.orgs[org];
  if (!state) return [];
  const health = (text, kind) => el("a", { href: link("health", { org }), "data-go": true, class: kind }, text);
  const jobs = Object.values(state.jobs), daily = jobs.filter((job) => job.granularity === "daily");
  const counted = daily.length ? daily : jobs;
  const newest = counted.map((job) => job.newest_complete).filter(Boolean).sort()[0];
  const last = newest ? format.day(format.dateOf(Date.parse(newest) - 1, state.timezone)) : null;
  const gaps = counted.reduce((sum, job) => sum + job.missing, 0);
  const parts = [];
  if (now.problem) parts.push(el("b", { class: "bad" }, `▲ ${visible(now.problem)}`));
  if (!last) parts.push(health(el("b", { class: "warn" }, "No figures yet")));
  else if (gaps) parts.push(health(el("b", { class: "warn" }, `Figures through ${last}, ${many(gaps, "window")} missing`)));
  else parts.push(health(el("b", { class: "good" }, `Figures complete through ${last}`)));
  if (state.restated_today) parts.push(health(`${many(state.restated_today, "figure")} restated today`));
  const own = now.problems.filter((each) => each.lines.some((line) => line.org === org) && each.state !== "running").length;
  const others = now.problems.filter((each) => each.lines.every((line) => line.org !== org) && each.state !== "running").length;
  if (own) parts.push(health(many(own, "problem"), "bad"));
  if (others) parts.push(health(own ? `${others} in other orgs` : `${many(others, "problem")} in other orgs`));
  if (now.export?.failed_at) parts.push(health("export failed", "bad"));
  else if (!own && !others) parts.push("no problems");
  return parts;
}

async function changed({ moved = false, back = false, top = false } = {}) {
  const { view, parameters } = state(), mine = (turn += 1);
  header();
  if (!now) return;
  const full = withOrg(parameters), key = `${view} ${full.org} ${full.flow ?? ""}`;
  document.title = `${TITLES[view]} · ${full.org} · flow-outcomes`;
  document.body.dataset.view = view;
  byId("day")?.remove();
  incomplete = false;
  try {
    if (current === key && moved) await VIEWS[view].update(full);
    else {
      current = key;
      const ready = VIEWS[view].show(byId("main"), full, now, back);
      if (top) scrollTo(0, 0);
      await ready;
      if (top && !back) byId("main").focus({ preventScroll: true });
    }
  } catch (error) {
    if (mine === turn) {
      incomplete = true; // the server goes on with what it could not answer in time
      schedule(RETRY);
      document.body.dataset.failed = error.message;
    }
  }
  if (mine === turn) document.body.dataset.shown = String(Number(document.body.dataset.shown ?? 0) + 1);
}

async function poll() {
  clearTimeout(timer);
  const { view } = state();
  try {
    const first = !now, before = now;
    now = await load("api/now");
    header();
    if (first) await changed();
    else {
      await VIEWS[view].refresh(withOrg(state().parameters), now, before !== now);
      incomplete = false;
    }
    failures = 0;
    polls += 1;
  } catch (error) {
    failures += 1;
    unreachable(error);
  }
  document.body.dataset.polls = polls;
  schedule(Math.min(INTERVAL_MAX, (incomplete ? RETRY : INTERVAL[view]) * 2 ** failures));
}

function schedule(ms) {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, ms);
}

function unreachable(error) {
  byId("fresh").replaceChildren(el("b", { class: "bad" }, "▲ Not live"), ` ${visible(error.message)}; what is shown may be old`);
  if (!now) byId("main").replaceChildren(el("h1", {}, TITLES[state().view]), failure(error));
}

const KEYS = [["/", "search"], ["j  k", "next, previous row"], ["Enter", "open"], ["g o", "overview"], ["g h", "health"], ["c", "compare"], ["Esc", "close"], ["?", "this help"]];

function help() {
  const dialog = byId("help");
  if (dialog.open) return dialog.close();
  const keys = KEYS.flatMap(([key, words]) => [el("dt", {}, key.split("  ").map((each) => el("kbd", {}, each)).flatMap((each, place) => (place ? [" ", each] : [each]))), el("dd", {}, words)]);
  dialog.replaceChildren(el("h2", { id: "help-title" }, "Keys"), el("dl", {}, keys), el("button", { type: "button", onclick: () => dialog.close() }, "Close"));
  return dialog.showModal();
}

function row(step) {
  const all = [...document.querySelectorAll("[data-row]")].filter((each) => each.offsetParent);
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function key(event) {
  if (event.metaKey || event.ctrlKey || event.altKey) return;
  const typing = event.target.closest?.("input:not([type=range]), select, textarea");
  if (event.key === "Escape" && typing) return typing.blur();
  if (typing || (byId("help").open && event.key !== "?")) return;
  const pressed = prefix + event.key;
  prefix = "";
  const { parameters } = state();
  if (event.key === "g") prefix = "g";
  else if (pressed === "go") go("overview", { org: parameters.org });
  else if (pressed === "gh") go("health", { org: parameters.org });
  else if (pressed === "/") document.querySelector("input[type=search]")?.focus();
  else if (pressed === "j") row(1);
  else if (pressed === "k") row(-1);
  else if (pressed === "c") byId("compare")?.click();
  else if (pressed === "?") help();
  else if (pressed === "Escape") byId("day-close")?.click();
  else return;
  if (event.key !== "Escape") event.preventDefault();
}

byId("main").replaceChildren();
byId("org").addEventListener("change", (event) => {
  const { view } = state();
  go(view, { org: event.target.value });
});
byId("help-open").addEventListener("click", help);
document.addEventListener("keydown", key);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
start(changed);
header();
if (state().view === "overview") load("api/overview", { org: orgOf(state().parameters), measure: state().parameters.measure }).catch(() => {});
poll();

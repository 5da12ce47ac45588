// Keeps the page as it stands: looks every few seconds while it is seen, more seldom where it gets no answer.

import * as calendar from "./calendar.js";
import * as day from "./day.js";
import { ask, byId, el, options, table, visible, when } from "./dom.js";
import * as now from "./now.js";
import * as shares from "./shares.js";

const EVERY = 3000, LONGEST = 30000, SHARES_EVERY = 4; // ms; and of so many looks one is for the shares too
const ALL = "";
let looks = 0, wait = EVERY, timer = 0, looking = false;
const seen = new Set(); // restatements that were there before

function openDay(org, job, when, from) {
  const select = byId("calendar-org");
  if (![ALL, org].includes(select.value)) select.value = org;
  const cell = calendar.cellOf(org, job, when);
  cell?.scrollIntoView({ block: "nearest", inline: "nearest" });
  return day.open(org, job, when, from);
}

function chosen() {
  const select = byId("calendar-org");
  return select.value === ALL ? [...select.options].map((option) => option.value).filter(Boolean) : [select.value];
}

function orgs(names) {
  options(byId("calendar-org"), [...(names.length > 1 && names.length <= 3 ? [[ALL, "all"]] : []), ...names.map((name) => [name, name])]);
  options(byId("shares-org"), names.map((name) => [name, name]));
}

async function changes() {
  const { document: told, changed } = await ask("/api/changes");
  if (!changed) return;
  const key = (each) => JSON.stringify([each.org, each.restated_at, each.flow_id, each.bucket_start, each.outcome_name]);
  const fresh = (each) => seen.size > 0 && !seen.has(key(each));
  const restated = told.restated.length ? day.restatements(told.restated, true, fresh) : el("p", { class: "quiet" }, "No figure was restated yet.");
  byId("restated").replaceChildren(el("h3", {}, "Restated"), restated);
  for (const each of told.restated) seen.add(key(each));
  const rows = told.renamed.map((each) => ({ cells: [when(each.renamed_at), each.org, each.old_name, each.new_name, each.flows] }));
  const headings = [{ text: "renamed", when: true }, "org", "from", "to", { text: "flows", number: true }];
  byId("renamed").replaceChildren(el("h3", {}, "Renamed"), rows.length ? table(headings, rows, "Renames") : el("p", { class: "quiet" }, "No outcome was renamed yet."));
}

async function look() {
  clearTimeout(timer);
  if (looking) return;
  looking = true;
  try {
    const { document: told } = await ask("/api/now");
    orgs(Object.keys(told.orgs));
    now.render(told, openDay);
    const others = [calendar.refresh(chosen()), changes(), day.refresh()];
    if (looks % SHARES_EVERY === 0) others.push(shares.refresh());
    const failed = (await Promise.allSettled(others)).find((each) => each.status === "rejected");
    if (failed) throw failed.reason;
    looks += 1;
    wait = EVERY;
    live(`● live, as of ${when(told.at)}`, false);
  } catch (error) {
    wait = Math.min(LONGEST, wait * 2);
    live(`▲ not live: ${visible(error.message)}; what is shown may be old, next look in ${wait / 1000} s`, true);
  } finally {
    looking = false;
    document.body.dataset.looks = looks;
    if (!document.hidden) timer = setTimeout(look, wait);
  }
}

function live(text, trouble) {
  byId("live").textContent = text;
  byId("live").className = trouble ? "trouble" : "quiet";
}

for (const part of document.querySelectorAll(".needs-script:not(#day)")) part.hidden = false;
calendar.start(openDay);
day.start();
shares.start();
byId("calendar-org").addEventListener("change", look);
byId("calendars").addEventListener("wanted", look);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
look();

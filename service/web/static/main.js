// Polls the server every few seconds while the page is visible, less often while requests fail.

import * as calendar from "./calendar.js";
import * as day from "./day.js";
import { byId, el, load, options, table, visible, when } from "./dom.js";
import * as now from "./now.js";
import * as shares from "./shares.js";

const INTERVAL = 3000, INTERVAL_MAX = 30000; // ms
const POLLS_PER_CHART = 4; // one poll in so many refreshes the chart
const ALL = "";
let polls = 0, interval = INTERVAL, timer = 0, polling = false;
const seen = new Set(); // restatements shown before

function openDay(org, job, when, from) {
  const select = byId("calendar-org");
  if (![ALL, org].includes(select.value)) select.value = org;
  const cell = calendar.cellOf(org, job, when);
  cell?.scrollIntoView({ block: "nearest", inline: "nearest" });
  return day.open(org, job, when, from);
}

function selectedOrgs() {
  const select = byId("calendar-org");
  return select.value === ALL ? [...select.options].map((option) => option.value).filter(Boolean) : [select.value];
}

function orgs(names) {
  options(byId("calendar-org"), [...(names.length > 1 && names.length <= 3 ? [[ALL, "all"]] : []), ...names.map((name) => [name, name])]);
  options(byId("shares-org"), names.map((name) => [name, name]));
}

async function changes() {
  const { document: data, changed } = await load("api/changes");
  if (!changed) return;
  const key = (each) => JSON.stringify([each.org, each.restated_at, each.flow_id, each.bucket_start, each.outcome_name]);
  const fresh = (each) => seen.size > 0 && !seen.has(key(each));
  const restated = data.restated.length ? day.restatements(data.restated, true, fresh) : el("p", { class: "quiet" }, "No restatements yet.");
  byId("restated").replaceChildren(el("h3", {}, "Restated"), restated);
  for (const each of data.restated) seen.add(key(each));
  const rows = data.renamed.map((each) => ({ cells: [when(each.renamed_at), each.org, each.old_name, each.new_name, each.flows] }));
  const headings = [{ text: "renamed", when: true }, "org", "from", "to", { text: "flows", number: true }];
  byId("renamed").replaceChildren(el("h3", {}, "Renamed"), rows.length ? table(headings, rows, "Renames") : el("p", { class: "quiet" }, "No renames yet."));
}

async function poll() {
  clearTimeout(timer);
  if (polling) return;
  polling = true;
  try {
    const { document: data } = await load("api/now");
    orgs(Object.keys(data.orgs));
    now.render(data, openDay);
    const others = [calendar.refresh(selectedOrgs()), changes(), day.refresh()];
    if (polls % POLLS_PER_CHART === 0) others.push(shares.refresh());
    const failed = (await Promise.allSettled(others)).find((each) => each.status === "rejected");
    if (failed) throw failed.reason;
    polls += 1;
    interval = INTERVAL;
    if (data.problem) showLive(`▲ live, as of ${when(data.at)}; ${visible(data.problem)}`, true);
    else showLive(`● live, as of ${when(data.at)}`, false);
  } catch (error) {
    interval = Math.min(INTERVAL_MAX, interval * 2);
    showLive(`▲ not live: ${visible(error.message)}; data may be old, next attempt in ${interval / 1000} s`, true);
  } finally {
    polling = false;
    document.body.dataset.polls = polls;
    if (!document.hidden) timer = setTimeout(poll, interval);
  }
}

function showLive(text, trouble) {
  byId("live").textContent = text;
  byId("live").className = trouble ? "trouble" : "quiet";
}

for (const part of document.querySelectorAll(".needs-script:not(#day)")) part.hidden = false;
calendar.start(openDay);
day.start();
shares.start();
byId("calendar-org").addEventListener("change", poll);
byId("calendars").addEventListener("moved", poll);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
poll();

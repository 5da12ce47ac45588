// One day of a job: its windows and their restatements, beside the click.

import { byId, copyButton, el, failure, many, name, visible } from "./dom.js";
import * as format from "./format.js";
import { load } from "./net.js";
import { set } from "./state.js";
import { LETTERS, STATE_NAMES, mark } from "./states.js";

let drawn = ""; // what the panel shows

export async function refresh(parameters) {
  const [org, openJob] = (parameters.open ?? "").split("/"), job = openJob ?? parameters.job, { day } = parameters;
  if (!org || !job || !day) {
    byId("day")?.remove();
    drawn = "";
    return;
  }
  const panel = byId("day") ?? placed();
  try {
    const document = await load("api/day", { org, job, day });
    const key = JSON.stringify(document);
    if (drawn === key && panel.firstChild) return;
    const fresh = panel.dataset.key !== `${org}/${job}/${day}`;
    drawn = key;
    panel.dataset.key = `${org}/${job}/${day}`;
    panel.replaceChildren(...body(document));
    if (fresh) byId("day-title").focus({ preventScroll: true });
  } catch (error) {
    panel.replaceChildren(head(org, job, day), failure(error));
  }
}

function placed() {
  const panel = el("section", { class: "card", id: "day", "aria-labelledby": "day-title" });
  document.querySelector(".side aside")?.prepend(panel);
  panel.scrollIntoView({ block: "nearest" });
  return panel;
}

function close() {
  const key = byId("day")?.dataset.key ?? "", [, job, day] = key.split("/");
  set({ day: null, job: null });
  byId(`day-${job}-${day}`)?.focus();
}

const head = (org, job, day) => el("div", { class: "day-head" }, el("h2", { id: "day-title", tabindex: "-1" }, `${visible(org)} ${visible(job)}, ${format.day(day)}`), el("button", { type: "button", id: "day-close", onclick: close }, "Close"));

function body(document) {
  const zone = document.timezone, made = [head(document.org, document.job, document.day)];
  if (document.command) made.push(el("div", { class: "run" }, el("code", {}, document.command), copyButton(document.command)));
  const restated = document.restatements ? [el("h3", {}, many(document.restatements, "restatement")), ...document.restated.map((each) => restatement(each, zone))] : [el("p", { class: "quiet" }, "No restatements.")];
  if (!document.windows.length) return [...made, el("p", {}, "No windows on this day.")];
  return [...made, ...document.windows.map((each) => window_(each, zone, document.windows.length)), ...restated];
}

function window_(each, zone, count) {
  const facts = [];
  if (each.attempts) facts.push(many(each.attempts, "attempt"));
  if (each.completed_at) facts.push(many(each.pages, "page"), many(each.rows, "row"));
  if (each.rejected) facts.push(`${each.rejected} rejected`);
  const when = each.completed_at ? `stored ${format.time(each.completed_at, zone)}` : `due ${format.time(each.due_at, zone)}`;
  const span = count > 1 ? `${format.clock(each.window_start, zone)} to ${format.clock(each.window_end, zone)} ` : "";
  return el("div", { class: "day-window", title: `${each.window_start} to ${each.window_end}` }, el("p", {}, span, mark(LETTERS[each.state] ?? "C"), STATE_NAMES[each.state] ?? each.state, el("span", { class: "quiet" }, ` · ${[when, ...facts].join(", ")}`)),
    each.last_error ? el("p", { class: each.state === "failed" ? "bad" : "warn" }, visible(each.last_error)) : "");
}

const counted = (count) => (count === null ? "null" : format.number(count));

function restatement(each, zone) {
  return el("div", { class: "day-window" }, el("p", {}, name(each.flow_name ?? each.flow_id), ": ", name(each.outcome_name), " ", el("s", {}, counted(each.old_count)), " → ", el("mark", {}, counted(each.new_count))),
    el("p", { class: "quiet" }, `${each.granularity === "hourly" ? format.time(each.bucket_start, zone) : each.granularity}, restated ${format.time(each.restated_at, zone)}`));
}

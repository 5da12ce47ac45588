// How it stands now: the verdict, what is missing and why, a card an org, the last warnings, the status table.

import { LETTERS, STATES, byId, el, lasting, localParts, many, mark, table, visible, when } from "./dom.js";

const MOST_CARDS = 24;
const MOST_ROWS = 200;

export function render(now, openDay) {
  verdict(now);
  missing(now, openDay);
  cards(now);
  warnings(now);
  status(now);
}

function verdict(now) {
  const works = Object.values(now.orgs).flatMap((org) => [...Object.values(org.jobs), org.ad_hoc]);
  const owed = works.reduce((sum, work) => sum + work.owed, 0);
  const doubted = Object.values(now.orgs).flatMap((org) => Object.values(org.jobs)).reduce((sum, job) => sum + (job.complete_with_error ?? 0), 0);
  const left = Math.max(0, ...works.map((work) => work.seconds_left ?? 0));
  const words = [];
  if (!owed) words.push("Nothing is due yet");
  else if (!now.missing) words.push(`All ${many(owed, "due window")} are there`);
  else words.push(`${many(now.missing, "due window")} of ${owed.toLocaleString("en")} ${now.missing === 1 ? "is" : "are"} missing`);
  if (doubted) words.push(`${many(doubted, "complete one")} ${doubted === 1 ? "is" : "are"} in doubt`);
  if (left) words.push(`at this pace the rest is there in ${lasting(left)}`);
  const text = `${words.join("; ")}.`;
  if (byId("verdict").textContent !== text) byId("verdict").textContent = text;
  document.title = now.missing ? `(${now.missing} missing) flow-outcomes` : "flow-outcomes";
}

let told = "";

function missing(now, openDay) {
  const said = JSON.stringify(now.gaps);
  if (said === told) return; // what has the focus stays
  told = said;
  byId("gaps").replaceChildren(...now.gaps.map((gap) => {
    const timezone = now.orgs[gap.org]?.timezone ?? "UTC";
    const what = `${gap.org} · ${gap.job ?? "by hand"} · ${stretch(gap, timezone)}`;
    const letter = LETTERS[gap.state];
    const words = el("span", {}, ` ${STATES[letter]}: ${visible(gap.reason)}`);
    if (!gap.job) return el("li", {}, mark(letter), el("span", {}, visible(what), words));
    const button = el("button", { type: "button" }, visible(what));
    button.addEventListener("click", () => openDay(gap.org, gap.job, localParts(gap.window_start, timezone).day, button));
    return el("li", {}, mark(letter), el("span", {}, button, words));
  }));
}

function stretch(gap, timezone) {
  const from = localParts(gap.window_start, timezone);
  const last = localParts(Date.parse(gap.window_end) - 1, timezone);
  if (gap.windows > 1) return `${from.day} to ${last.day} (${gap.windows} windows)`;
  if (Date.parse(gap.window_end) - Date.parse(gap.window_start) < 80000000) return `${from.day} ${from.time}`;
  return from.day === last.day ? from.day : `${from.day} to ${last.day}`;
}

function cards(now) {
  const found = Object.entries(now.orgs).slice(0, MOST_CARDS).map(([name, org]) => card(name, org, now.at));
  const rest = Object.keys(now.orgs).length - found.length;
  byId("orgs").replaceChildren(el("div", { class: "cards" }, found), rest > 0 ? el("p", { class: "quiet" }, `and ${rest} more orgs, in the table below`) : "");
}

function card(name, org, at) {
  const facts = [];
  const fact = (term, ...said) => facts.push(el("dt", {}, term), el("dd", {}, ...said));
  fact("worked by", org.here ? "this process" : org.owner ? `another process: ${visible(org.owner)}` : el("span", { class: "trouble" }, "nobody"));
  const rate = org.rate === null ? (org.here ? "measuring" : "not known here") : `${org.rate.toFixed(1)} of ${org.limit} a second`;
  fact("limit in use", org.rate === null ? rate : [el("meter", { min: 0, max: org.limit, value: Math.min(org.rate, org.limit), "aria-label": "limit in use" }), ` ${rate}`]);
  if (org.in_flight !== null) fact("queue", `${many(org.in_flight, "scan")} in flight, ${org.waiting} waiting`);
  const breaker = org.breaker === "closed" ? "closed" : `${org.breaker}${org.breaker_until ? ` until ${when(org.breaker_until)}` : ""}`;
  fact("breaker", el("span", { class: org.breaker === "closed" ? null : "trouble" }, breaker));
  fact("Retry-After", org.paused_for > 0 ? el("span", { class: "trouble" }, `held back for ${lasting(org.paused_for)}`) : "none");
  for (const [job, work] of Object.entries(org.jobs)) fact(visible(job), ...progress(work, at));
  if (org.ad_hoc.owed) fact("by hand", ...progress(org.ad_hoc, at));
  if (org.restated_last_day) fact("restated", `${many(org.restated_last_day, "figure")} in the last day`);
  return el("div", { class: "card", "data-org": name }, el("h3", {}, visible(name)), el("dl", {}, facts));
}

function progress(work, at) {
  const said = [];
  if (work.to_come) {
    said.push(el("progress", { max: work.owed, value: work.done, "aria-label": "windows there" }), ` ${work.done} of ${work.owed}`);
    if (work.a_minute !== null) said.push(`, ${work.a_minute} a minute`);
    said.push(work.seconds_left === null ? "" : `, there in ${lasting(work.seconds_left)}`, el("br"));
  } else if (work.missing) said.push(`${work.done} of ${work.owed}`, el("br"));
  if (work.windows.failed) said.push(el("span", { class: "trouble" }, many(work.windows.failed, "failed window")), el("br"));
  if (work.newest_complete) {
    const age = (Date.parse(at) - Date.parse(work.newest_complete)) / 1000;
    said.push(`complete up to ${when(work.newest_complete).replace(":00Z", "Z")}, ${lasting(age)} ago`);
  } else if ("newest_complete" in work) said.push("nothing complete yet");
  else if (!said.length) said.push(`${work.done} of ${work.owed}, all there`);
  return said;
}

function warnings(now) {
  if (!now.warnings.length) {
    byId("warnings").replaceChildren(el("p", { class: "quiet" }, "None since this process began."));
    return;
  }
  const headings = [{ text: "when", when: true }, "event", "org", "job", { text: "times", number: true }, "the last of them"];
  const rows = now.warnings.map((each) => ({ cells: [when(each.at), each.event, each.org, each.job, each.times, each.text] }));
  byId("warnings").replaceChildren(table(headings, rows, "Last warnings"));
}

function status(now) {
  const number = (text) => ({ text, number: true });
  const headings = ["org", "job", "breaker", number("complete"), number("pending"), number("running"), number("failed"), { text: "newest complete", when: true }, number("missing")];
  const rows = Object.entries(now.orgs).flatMap(([name, org]) =>
    Object.entries(org.jobs).map(([job, work]) => ({
      cells: [name, job, org.breaker, work.windows.complete, work.windows.pending, work.windows.running, work.windows.failed,
        when(work.newest_complete), work.missing],
    })));
  const title = byId("status-title");
  byId("status").replaceChildren(title, el("p", { class: "quiet" }, `As of ${when(now.at)}`), table(headings, rows.slice(0, MOST_ROWS), "Status table"));
}

// The overview: summary, missing windows with reasons, a card for each org, the last warnings, the status table.

import { LETTERS, STATES, byId, duration, el, localParts, many, mark, table, visible, when } from "./dom.js";

const MAX_CARDS = 24;
const MAX_ROWS = 200;
const SHORTEST_DAY = 82800000; // ms: 23 hours

export function render(now, openDay) {
  summary(now);
  missing(now, openDay);
  cards(now);
  warnings(now);
  status(now);
}

function summary(now) {
  const works = Object.values(now.orgs).flatMap((org) => [...Object.values(org.jobs), org.ad_hoc]);
  const due = works.reduce((sum, work) => sum + work.due, 0);
  const doubted = Object.values(now.orgs).flatMap((org) => Object.values(org.jobs)).reduce((sum, job) => sum + (job.complete_with_error ?? 0), 0);
  const left = Math.max(0, ...works.map((work) => work.seconds_left ?? 0));
  const words = [];
  if (!due) words.push("No window is due yet");
  else if (now.missing) words.push(`${now.missing.toLocaleString("en")} of ${many(due, "due window")} missing`);
  else words.push(due === 1 ? "The due window is complete" : `All ${many(due, "due window")} are complete`);
  if (doubted) words.push(`${many(doubted, "complete window")} unconfirmed`);
  if (left) words.push(`about ${duration(left)} left at this pace`);
  const text = `${words.join("; ")}.`;
  if (byId("summary").textContent !== text) byId("summary").textContent = text;
  document.title = now.missing ? `(${now.missing} missing) flow-outcomes` : "flow-outcomes";
}

let shown = "";

function missing(now, openDay) {
  const gaps = JSON.stringify(now.gaps);
  if (gaps === shown) return; // keeps the focus
  shown = gaps;
  byId("gaps").replaceChildren(...now.gaps.map((gap) => {
    const timezone = now.orgs[gap.org]?.timezone ?? "UTC";
    const what = `${gap.org} · ${gap.job ?? "ad hoc"} · ${span(gap, timezone)}`;
    const letter = LETTERS[gap.state];
    const words = el("span", {}, ` ${STATES[letter]}: ${visible(gap.reason)}`);
    if (!gap.job) return el("li", {}, mark(letter), el("span", {}, visible(what), words));
    const button = el("button", { type: "button" }, visible(what));
    button.addEventListener("click", () => openDay(gap.org, gap.job, localParts(gap.window_start, timezone).day, button));
    return el("li", {}, mark(letter), el("span", {}, button, words));
  }));
}

function span(gap, timezone) {
  const from = localParts(gap.window_start, timezone);
  const last = localParts(Date.parse(gap.window_end) - 1, timezone);
  if (gap.windows > 1) return `${from.day} to ${last.day} (${gap.windows} windows)`;
  if (Date.parse(gap.window_end) - Date.parse(gap.window_start) < SHORTEST_DAY) return `${from.day} ${from.time}`;
  return from.day === last.day ? from.day : `${from.day} to ${last.day}`;
}

function cards(now) {
  const shownCards = Object.entries(now.orgs).slice(0, MAX_CARDS).map(([name, org]) => card(name, org, now.at));
  const rest = Object.keys(now.orgs).length - shownCards.length;
  byId("orgs").replaceChildren(el("div", { class: "cards" }, shownCards), rest > 0 ? el("p", { class: "quiet" }, `${many(rest, "more org")} in the table below`) : "");
}

function card(name, org, at) {
  const facts = [];
  const fact = (term, ...values) => facts.push(el("dt", {}, term), el("dd", {}, ...values));
  fact("held by", org.held_here ? "this process" : org.owner ? `another process: ${visible(org.owner)}` : el("span", { class: "trouble" }, "no process"));
  const rate = org.rate === null ? (org.held_here ? "measuring" : "unknown here") : `${org.rate.toFixed(1)} of ${org.limit} a second`;
  fact("limit in use", org.rate === null ? rate : [el("meter", { min: 0, max: org.limit, value: Math.min(org.rate, org.limit), "aria-label": "limit in use" }), ` ${rate}`]);
  if (org.in_flight !== null) fact("queue", `${many(org.in_flight, "scan")} in flight, ${org.waiting} waiting`);
  const breaker = org.breaker === "closed" ? "closed" : `${org.breaker}${org.breaker_until ? ` until ${when(org.breaker_until)}` : ""}`;
  fact("circuit breaker", el("span", { class: org.breaker === "closed" ? null : "trouble" }, breaker));
  fact("Retry-After", org.paused_for > 0 ? el("span", { class: "trouble" }, `rate-limited for ${duration(org.paused_for)}`) : "none");
  for (const [job, work] of Object.entries(org.jobs)) fact(visible(job), ...progress(work, at));
  if (org.ad_hoc.due) fact("ad hoc", ...progress(org.ad_hoc, at));
  if (org.restated_last_day) fact("restated", `${many(org.restated_last_day, "figure")} in the last day`);
  return el("div", { class: "card", "data-org": name }, el("h3", {}, visible(name)), el("dl", {}, facts));
}

function progress(work, at) {
  const parts = [], share = `${work.complete} of ${work.due}`;
  if (work.remaining) {
    parts.push(el("progress", { max: work.due, value: work.complete, "aria-label": "complete windows" }), ` ${share}`);
    if (work.per_minute !== null) parts.push(`, ${work.per_minute} a minute`);
    parts.push(work.seconds_left === null ? "" : `, about ${duration(work.seconds_left)} left`, el("br"));
  } else if (work.missing) parts.push(share, el("br"));
  if (work.windows.failed) parts.push(el("span", { class: "trouble" }, many(work.windows.failed, "failed window")), el("br"));
  if (work.newest_complete) {
    const age = (Date.parse(at) - Date.parse(work.newest_complete)) / 1000;
    parts.push(`complete up to ${when(work.newest_complete).replace(":00Z", "Z")}, ${duration(age)} ago`);
  } else if ("newest_complete" in work) parts.push("no complete window yet");
  else if (!parts.length) parts.push(`${share} complete`);
  return parts;
}

function warnings(now) {
  if (!now.warnings.length) {
    byId("warnings").replaceChildren(el("p", { class: "quiet" }, "None since this process started."));
    return;
  }
  const headings = [{ text: "when", when: true }, "event", "org", "job", { text: "count", number: true }, "last"];
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
  byId("status").replaceChildren(title, el("p", { class: "quiet" }, `As of ${when(now.at)}`), table(headings, rows.slice(0, MAX_ROWS), "Status table"));
}

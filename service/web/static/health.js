// The health: 90 days of each org and job, problems by cause, what happened lately.

import * as calendar from "./calendar.js";
import { strip } from "./charts.js";
import * as dayView from "./day.js";
import { byId, copyButton, el, empty, failure, loading, many, name, visible } from "./dom.js";
import { suggestion } from "./flow.js";
import * as format from "./format.js";
import { load } from "./net.js";
import { link, set } from "./state.js";
import { LETTERS, RANK, STATES, counted, mark, worst } from "./states.js";
import * as timeline from "./timeline.js";

const TROUBLE = "FNLD";
const SUGGESTED = 3; // suggested aliases that are listed without a click
const UNFOLDED = 60; // healthy orgs that are listed without a click
let parts = {}; // the texts of the parts that are shown, so that an unchanged part keeps its focus
let strips = null;

export async function show(main, parameters, now) {
  parts = {};
  main.replaceChildren(el("h1", {}, "Health"), el("p", { class: "sub", id: "health-sub" }), el("p", { class: "sub", id: "health-export" }),
    el("div", { class: "side" }, el("div", {}, el("section", { class: "card bare strips", id: "strips", "aria-label": "90 days of each job" }, loading()), el("div", { id: "suggestions" })),
      el("aside", { "aria-label": "Problems and events" }, el("section", { class: "card bare", id: "problems", "aria-label": "Problems" }), el("section", { class: "card bare", id: "timeline", "aria-label": "Timeline" }))));
  return refresh(parameters, now);
}

export async function refresh(parameters, now) {
  last = now;
  summary(now);
  part("health-export", [now.export, format.span(age(now.at, now.export?.exported_at))], () => exported(now));
  part("problems", now.problems, () => problems(now));
  const searched = load("api/suggestions").catch(() => null); // may take longer: nothing waits for it
  const [rows, events] = await Promise.allSettled([allStrips(), load("api/timeline")]);
  if (rows.status === "fulfilled") {
    strips = rows.value;
    part("strips", [strips, parameters.open ?? "", states(now)], () => stripRows(strips, now, parameters));
    await opened(parameters, now);
  } else if (!parts.strips) byId("strips")?.replaceChildren(failure(rows.reason));
  if (events.status === "fulfilled") part("timeline", events.value.events, () => timeline.list(events.value));
  await dayView.refresh(parameters);
  const found = await searched;
  if (found) part("suggestions", found.suggestions, () => suggestions(found.suggestions, now));
  if (rows.status === "rejected") throw rows.reason;
}

// The most certain ones; with campaigns there are many.
function suggestions(all, now) {
  if (!all.length) return [];
  const notes = all.map((each) => suggestion(each, now.orgs[each.org]?.timezone ?? "UTC", el("p", { class: "quiet" }, visible(each.org), " · ", el("a", { href: link("flow", { org: each.org, flow: each.flow_id }), "data-go": true }, name(each.flow_name ?? each.flow_id)))));
  const more = notes.splice(SUGGESTED);
  return [el("h2", {}, many(all.length, "suggested alias", "suggested aliases")), ...notes, more.length ? el("details", {}, el("summary", {}, `Show ${more.length} more`), more) : ""];
}

let last = null;

export function update(parameters) {
  return refresh(parameters, last);
}

function part(id, document, make) {
  const text = JSON.stringify(document), box = byId(id);
  if (!box || parts[id] === text) return;
  parts[id] = text;
  const focused = box.contains(globalThis.document.activeElement) ? globalThis.document.activeElement.id : null;
  box.replaceChildren(...[make()].flat(2));
  if (focused) byId(focused)?.focus({ preventScroll: true });
}

async function allStrips() {
  const first = await load("api/strips"), rest = [];
  for (let batch = 1; batch < first.batches; batch += 1) rest.push(await load("api/strips", { batch }));
  return [first, ...rest].flatMap((each) => each.strips);
}

const states = (now) => Object.entries(now.orgs).map(([org, state]) => [org, ...Object.values(state.jobs).map((job) => [job.newest_complete, job.missing])]);

function summary(now) {
  const orgs = Object.values(now.orgs), jobs = orgs.flatMap((org) => Object.values(org.jobs));
  const lacking = jobs.filter((job) => job.missing).length, works = [...jobs, ...orgs.map((org) => org.ad_hoc)];
  const left = Math.max(0, ...works.map((work) => work.seconds_left ?? 0));
  const words = [many(orgs.length, "org"), many(jobs.length, "job"), lacking ? `${many(now.missing, "due window")} missing in ${many(lacking, "job")}` : "all complete"];
  if (left) words.push(`about ${format.span(left)} left at this pace`);
  byId("health-sub").textContent = words.join(" · ");
}

const age = (at, instant) => (instant ? Math.max(0, (Date.parse(at) - Date.parse(instant)) / 1000) : 0);

// The newest export to the warehouse: its number and age, and why the last one failed.
function exported({ at, export: state }) {
  if (!state) return [];
  const newest = state.exported_at ? `number ${state.export}, ${format.span(age(at, state.exported_at))} old` : "none yet";
  return [`Export to ${visible(state.warehouse)}: ${newest}`, state.owner ? " · one is running" : "",
    state.failed_at ? el("span", { class: "bad" }, ` · failed ${format.span(age(at, state.failed_at))} ago: ${visible(state.last_error ?? "")}`) : ""];
}

function problems(now) {
  if (!now.problems.length) return [el("div", { class: "cause" }, el("h3", { class: "good" }, "No problems"), el("p", { class: "quiet" }, "Every due window is complete."))];
  return now.problems.map((cause) => {
    const serious = cause.state === "failed" || cause.state === "not requested" ? "bad" : cause.state === "running" ? "quiet" : "warn";
    const one = cause.lines.every((line) => line.reason === cause.lines[0].reason) ? cause.lines[0].reason : null;
    const lines = cause.lines.map((line) => el("li", {}, el("b", {}, visible(line.org)), ` ${visible(line.job ?? "ad hoc")}, `,
      line.job ? el("button", { type: "button", class: "plain inline", onclick: () => set({ open: `${line.org}/${line.job}`, day: line.last }) }, span(line)) : span(line), one === null ? `: ${visible(line.reason)}` : "",
      line.command ? el("div", { class: "run" }, el("code", { title: line.command }, line.command), copyButton(line.command)) : ""));
    const list = el("ul", {}, lines, cause.more ? el("li", {}, `and ${cause.more} more`) : "");
    return el("div", { class: "cause", "data-state": cause.state }, el("h3", { class: serious }, mark(LETTERS[cause.state]), visible(cause.title)),
      el("span", { class: "quiet" }, ` · ${STATES[LETTERS[cause.state]]} · ${many(cause.orgs, "org")}, ${many(cause.windows, "window")}`), one === null ? "" : el("p", { class: "quiet reason" }, visible(one)),
      cause.lines.length > 3 ? el("details", {}, el("summary", {}, "Show each org"), list) : list);
  });
}

function span(line) {
  const windows = line.windows > 1 ? ` (${many(line.windows, line.window ?? "window")})` : "";
  return (line.first === line.last ? format.day(line.first) : `${format.day(line.first)} to ${format.day(line.last)}`) + windows;
}

// An org without trouble is one row, all its jobs in one strip; one with trouble has a row for each job.
function stripRows(all, now, parameters) {
  if (!all.length) return [empty("No orgs")];
  const unhealthy = [], healthy = [];
  for (const each of all) {
    const jobs = Object.entries(each.jobs), bad = jobs.filter(([job, { days }]) => now.orgs[each.org]?.jobs[job]?.missing || [...days].some((letter) => TROUBLE.includes(letter)));
    if (!bad.length) healthy.push(row(each, null, worst(jobs.map(([, { days }]) => days)), now, parameters));
    else unhealthy.push(...jobs.map(([job, { days }]) => row(each, job, days, now, parameters, bad.some(([one]) => one === job))));
  }
  const many_healthy = healthy.length > UNFOLDED;
  const letters = new Set(all.flatMap((each) => Object.values(each.jobs).flatMap(({ days }) => [...days])));
  const key = el("ul", { class: "key", "aria-label": "Letters" }, [...RANK].filter((letter) => STATES[letter] && letters.has(letter)).map((letter) => el("li", {}, mark(letter), STATES[letter])));
  return [...unhealthy, ...(many_healthy ? [el("details", {}, el("summary", {}, `${many(healthy.length, "healthy org")}`), healthy)] : healthy), key];
}

function row(each, job, days, now, parameters, trouble = false) {
  const id = job ? `${each.org}/${job}` : each.org, isOpen = parameters.open === id;
  const state = now.orgs[each.org], jobs = job ? [state?.jobs[job]] : Object.values(state?.jobs ?? {});
  const first = each.first, chart = strip(days, `${each.org} ${job ?? ""}: ${counted(days) || "no windows"}`);
  const dayAt = (event) => { const box = chart.getBoundingClientRect(); return format.shift(first, Math.min(days.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * days.length)))); };
  chart.addEventListener("pointermove", (event) => { const day = dayAt(event), letter = days[(Date.parse(day) - Date.parse(first)) / 86400000]; box.title = `${format.day(day)}: ${STATES[letter] ?? "no window"}`; });
  chart.addEventListener("click", (event) => set({ open: id, day: job || Object.keys(each.jobs).length === 1 ? dayAt(event) : null, job: null }));
  const box = el("div", {}, chart);
  const label = el("button", { type: "button", class: "plain", "data-row": true, id: `row-${id}`, "aria-expanded": String(isOpen), onclick: () => set(isOpen ? { open: null, day: null } : { open: id, day: null }) }, el("b", {}, visible(each.org)), el("span", { class: "quiet" }, visible(job ?? (Object.keys(each.jobs).length > 1 ? many(Object.keys(each.jobs).length, "job") : Object.keys(each.jobs)[0] ?? "no jobs"))));
  const made = [el("div", { class: `strip ${trouble ? "trouble" : ""}`, "data-org": each.org, "data-job": job ?? "" }, label, box, el("div", { class: "said" }, said(jobs.filter(Boolean), each.timezone)))];
  if (isOpen) made.push(el("div", { class: "opened", id: "opened" }, facts(state, now.at, each.timezone), el("div", { id: "calendars" })));
  return made;
}

function said(jobs, timezone) {
  const missing = jobs.reduce((sum, job) => sum + job.missing, 0), window = jobs.length === 1 ? jobs[0].window : "window";
  const newest = jobs.map((job) => job.newest_complete).filter(Boolean).sort()[0];
  if (missing) return el("span", { class: "bad" }, `${many(missing, window)} missing`);
  if (!newest) return "no window is due yet";
  const hourly = jobs.length === 1 && jobs[0].window === "hour";
  const through = hourly ? format.time(newest, timezone) : format.day(format.dateOf(Date.parse(newest) - 1, timezone));
  const error = jobs.reduce((sum, job) => sum + job.complete_with_error, 0);
  return error ? el("span", { class: "warn" }, `${many(error, window)} unconfirmed`) : `through ${through}`;
}

function facts(org, at, timezone) {
  if (!org) return "";
  const made = [], fact = (term, ...values) => made.push(el("dt", {}, term), el("dd", {}, values));
  fact("held by", org.held_here ? "this process" : org.owner ? `another process: ${visible(org.owner)}` : el("span", { class: "bad" }, "no process"));
  if (org.rate !== null) fact("limit in use", el("meter", { min: 0, max: org.limit, value: Math.min(org.rate, org.limit), "aria-label": "limit in use" }), ` ${org.rate.toFixed(1)} of ${org.limit} a second`);
  else if (!org.held_here) fact("limit", `${org.limit} a second`);
  if (org.in_flight !== null) fact("queue", `${many(org.in_flight, "scan")} in flight, ${org.waiting} waiting`);
  if (org.breaker !== "closed") fact("circuit breaker", el("span", { class: "bad" }, `${org.breaker}${org.breaker_until ? ` until ${format.clock(org.breaker_until, timezone)}` : ""}`));
  if (org.paused_for > 0) fact("Retry-After", el("span", { class: "bad" }, `rate-limited for ${format.span(org.paused_for)}`));
  for (const [job, work] of [...Object.entries(org.jobs), ["ad hoc", org.ad_hoc]]) if (work.remaining) fact(visible(job), ...progress(work));
  return el("dl", { class: "facts" }, made);
}

function progress(work) {
  const pace = work.per_minute === null ? "" : `, ${work.per_minute} a minute`, left = work.seconds_left === null ? "" : `, about ${format.span(work.seconds_left)} left`;
  return [el("progress", { max: work.due, value: work.complete, "aria-label": "complete windows" }), ` ${format.number(work.complete)} of ${format.number(work.due)}${pace}${left}`];
}

async function opened(parameters, now) {
  const box = byId("calendars");
  if (!box || !parameters.open) return;
  const [org, job] = parameters.open.split("/");
  if (!now.orgs[org]) return;
  calendar.show(box, await load("api/calendar", { org, to: parameters.until }), job, parameters.day, (name_, day) => set({ day, job: job ? null : name_ }));
}

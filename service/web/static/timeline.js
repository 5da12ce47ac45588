// What happened lately, in sentences, by day and in each org's time zone.

import { el, many, name, visible } from "./dom.js";
import * as format from "./format.js";

const WARNINGS = {
  rate_limited: "the API limits the rate", rate_limit_exhausted: "the API's limit is used up", retry_scheduled: "a request is sent again",
  window_failed: "a window failed", window_doubted: "an empty response is not confirmed yet", window_postponed: "a window is not settled yet", window_reopened: "a window is due again",
  window_restarted: "a window was started again", scan_split: "a query was too large and was split", granularity_adjusted: "a window was coarsened", span_adjusted: "a span was widened or cut to its buckets",
  outcome_missing: "an outcome is no longer reported", percentage_mismatch: "percentages do not fit the counts", split_contradicted: "successes and failures do not fit the count", entry_rejected: "an entry was rejected",
  names_unavailable: "names could not be read", region_unknown: "the region is unknown", circuit_opened: "the circuit breaker opened", circuit_half_open: "the circuit breaker tries a request",
  config_rejected: "the configuration was rejected", clock_doubted: "two clocks differ", clock_stepped: "the clock was set", log_lines_dropped: "lines of the log were dropped", database_unavailable: "the database is unavailable",
  org_lost: "the org was lost to another process", unexpected_error: "an unexpected error", alias_suggested: "an alias is suggested",
};

// The instants within a text, in the org's time zone.
const local = (text, zone) => text.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, (instant) => format.time(instant, zone));

function buckets(each, zone) {
  const first = format.dateOf(each.first, zone), end = each.granularity ? Date.parse(each.last) : Date.parse(each.last) - 1, last = format.dateOf(end, zone);
  return first === last ? format.day(first) : `${format.day(first)} to ${format.day(last)}`;
}

const SENTENCES = {
  restated: (each, zone) => [`${many(each.figures, `${each.granularity} figure`)} restated, of `, buckets(each, zone)],
  renamed: (each) => [name(each.old_name), " is now ", name(each.new_name), ` in ${many(each.flows, "flow")}`],
  complete: (each, zone) => [`${visible(each.job ?? "ad hoc")}: ${many(each.windows, "window")} complete, `, buckets(each, zone)],
  owner: (each) => [`taken over by ${visible(each.owner)}`],
  warning: (each, zone) => [`${each.job ? `${visible(each.job)}: ` : ""}${WARNINGS[each.event] ?? visible(each.event.replaceAll("_", " "))}${each.times > 1 ? ` (${each.times} times)` : ""}${each.text ? `: ${visible(local(each.text, zone))}` : ""}`],
};

// One line for what happened to several orgs in the same minute.
function grouped(events, timezones) {
  const groups = new Map();
  for (const each of events) {
    const zone = timezones[each.org] ?? "UTC", words = el("p", {}, SENTENCES[each.kind](each, zone)).textContent;
    const key = JSON.stringify([format.time(each.at, zone), words]);
    if (groups.has(key)) groups.get(key).push(each);
    else groups.set(key, [each]);
  }
  return groups.values();
}

export function list({ events, timezones }) {
  if (!events.length) return el("p", { class: "cause quiet" }, "Nothing happened in the last day.");
  const made = [];
  let shown = "";
  for (const [each, ...others] of grouped(events, timezones)) {
    const zone = timezones[each.org] ?? "UTC", day = format.day(format.dateOf(each.at, zone));
    const orgs = [each, ...others].map((one) => one.org).filter(Boolean);
    const said = orgs.length > 3 ? `${orgs.slice(0, 2).join(", ")} and ${orgs.length - 2} more orgs` : orgs.join(", ");
    if (day !== shown) made.push(el("li", {}, el("h3", {}, day)));
    shown = day;
    made.push(el("li", { "data-kind": each.kind, class: each.level === "error" ? "bad" : null }, el("time", { datetime: each.at, title: each.at }, format.clock(each.at, zone)), said ? el("b", {}, visible(said)) : "", said ? ": " : "", SENTENCES[each.kind](each, zone)));
  }
  return el("ul", { class: "events" }, made);
}
